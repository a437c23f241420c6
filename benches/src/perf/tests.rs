//! Which stage a sample counts for.

use super::*;

const SCRIPT: &str = "io-0 \n\
\t          16d8bb __memmove_avx512_unaligned_erms (/usr/lib/libc.so.6)\n\
\t          2eeb42 <proto::inference::ModelInferRequest as prost::message::Message>::merge_field (/x/penstock)\n\
\t          8ae9c4 tonic::codec::decode::StreamingInner::poll_frame (/x/penstock)\n\
\n\
io-0 \n\
\tffffffff821f5b65 tcp_sendmsg ([kernel.kallsyms])\n\
\t          2eeb42 h2::codec::framed_write::flush (/x/penstock)\n\
\n\
io-0 \n\
\tffffffff821f5b65 futex_wake ([kernel.kallsyms])\n\
\t          2eeb42 penstock::batching::pool::Pool::enqueue (/x/penstock)\n\
\t          2eeb42 penstock::api::grpc::service::Service::infer::{{closure}} (/x/penstock)\n\
\n\
engine-cpu-0 \n\
\t          16d8bb gomp_barrier (/x/lib/libgomp.so.1)\n\
\t          16d8bb at::native::addmm (/x/lib/libtorch_cpu.so)\n\
\t          2eeb42 penstock::batching::worker::run (/x/penstock)\n\
\n\
io-0 \n\
\t          3dbf01 std::sys::backtrace::__rust_begin_short_backtrace (/x/penstock)\n\
\tffffffffffffffff [unknown] ([unknown])\n\
\n";

#[test]
fn a_sample_counts_for_the_innermost_function_that_a_stage_claims() {
    let counts = count(SCRIPT);
    let expected = [("decode", 1), (SOCKETS, 1), ("queue", 1), ("engine", 1), (REST, 1)];
    assert_eq!(counts, BTreeMap::from(expected));
}

#[test]
fn nothing_recorded_counts_nothing() {
    assert!(count("").is_empty());
    assert!(count("\n\n\n").is_empty());
}

#[test]
fn paths_are_matched_from_their_first_part() {
    assert!(names("<engine::model::Model as Run>::run", "engine"));
    assert!(!names("penstock::engine::run", "engine"));
    assert!(!names("my_engine::run", "engine"));
    assert!(names("metrics::counter", "metrics") && !names("metrics_util::x", "metrics"));
    assert!(names(
        "core::ptr::drop_in_place<penstock::pipeline::Record>",
        "penstock::pipeline::Record"
    ));
}

#[test]
fn a_function_with_brackets_in_its_name_is_read_whole() {
    let line = "\t 42b0c3 <F as Fn<(A, B)>>::call (inlined) (/x y/penstock)";
    let found = frame(line).unwrap();
    assert_eq!(found.function, "<F as Fn<(A, B)>>::call (inlined)");
    assert_eq!(found.library, "penstock");
    assert_eq!(frame("io-0 "), None);
}

#[test]
fn every_stage_is_printed() {
    let printed: Vec<&str> = ORDER.iter().map(|(stage, _)| *stage).collect();
    for stage in STAGES.iter().map(|(stage, _)| *stage).chain([SOCKETS, REST]) {
        assert!(printed.contains(&stage), "{stage}");
    }
}
