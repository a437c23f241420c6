//! Holds the messages to the protocol as its clients know it (`fields.txt`).

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MessageOptions,
    MethodDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

/// What we add and Triton's clients skip: `properties` comes from the Open Inference Protocol, the
/// rest from `KServe`.
const EXTRA: [&str; 5] = [
    "ModelMetadataResponse.properties 6 map<string,string> map",
    "RepositoryModelLoadResponse.isLoaded 2 bool singular",
    "RepositoryModelLoadResponse.model_name 1 string singular",
    "RepositoryModelUnloadResponse.isUnloaded 2 bool singular",
    "RepositoryModelUnloadResponse.model_name 1 string singular",
];

#[test]
fn everything_clients_know_is_here_with_the_same_number_type_and_label() {
    let ours = ours();
    let missing: Vec<_> = theirs().into_iter().filter(|line| !ours.contains(line)).collect();
    assert!(missing.is_empty(), "missing or different: {missing:#?}");
}

#[test]
fn what_clients_do_not_know_is_on_the_list() {
    let theirs = theirs();
    let extra: Vec<_> = ours().into_iter().filter(|line| !theirs.contains(line)).collect();
    assert_eq!(extra, EXTRA);
}

#[test]
fn the_fixture_covers_the_whole_service() {
    let rpcs = theirs().iter().filter(|line| line.starts_with("rpc ")).count();
    assert_eq!(rpcs, 20);
}

#[test]
fn the_descriptors_are_complete_and_without_source_info() {
    let files = descriptors().file;
    let named: Vec<_> = files.iter().map(|file| (file.name(), file.package())).collect();
    let expected = [
        ("model_config.proto", "inference"),
        ("grpc_service.proto", "inference"),
        ("feedback.proto", "penstock.v1"),
    ];
    assert_eq!(named, expected);
    assert!(files.iter().all(|file| file.source_code_info.is_none()));
}

#[test]
fn tensors_share_the_received_buffer() {
    let sent = proto::inference::ModelInferRequest {
        model_name: "digits".into(),
        raw_input_contents: vec![vec![7_u8; 4096].into()],
        ..Default::default()
    };
    let wire = bytes::Bytes::from(sent.encode_to_vec());
    let received = proto::inference::ModelInferRequest::decode(wire.clone()).expect("own message");
    assert_eq!(received, sent);

    let tensor = received.raw_input_contents[0].as_ptr_range();
    let buffer = wire.as_ptr_range();
    assert!(buffer.start <= tensor.start && tensor.end <= buffer.end, "the tensor was copied");
}

fn theirs() -> BTreeSet<String> {
    include_str!("fields.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn ours() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in descriptors().file {
        if file.package() != "inference" {
            continue;
        }
        for service in &file.service {
            assert_eq!(service.name(), "GRPCInferenceService");
            lines.extend(service.method.iter().map(rpc_line));
        }
        for item in &file.enum_type {
            add_enum(&mut lines, "", item);
        }
        for message in &file.message_type {
            add_message(&mut lines, "", message);
        }
    }
    lines
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("the descriptors decode")
}

fn rpc_line(rpc: &MethodDescriptorProto) -> String {
    let kind = match (rpc.client_streaming(), rpc.server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client",
        (false, true) => "server",
        (true, true) => "bidi",
    };
    format!("rpc {} {} {} {kind}", rpc.name(), short(rpc.input_type()), short(rpc.output_type()))
}

fn add_enum(lines: &mut BTreeSet<String>, scope: &str, item: &EnumDescriptorProto) {
    for value in &item.value {
        lines.insert(format!("value {scope}{}.{} {}", item.name(), value.name(), value.number()));
    }
}

fn add_message(lines: &mut BTreeSet<String>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        let (kind, label) = type_and_label(message, field);
        lines.insert(format!("{name}.{} {} {kind} {label}", field.name(), field.number()));
    }
    let inner = format!("{name}.");
    for item in &message.enum_type {
        add_enum(lines, &inner, item);
    }
    for nested in message.nested_type.iter().filter(|nested| !is_map_entry(nested)) {
        add_message(lines, &inner, nested);
    }
}

fn type_and_label(message: &DescriptorProto, field: &FieldDescriptorProto) -> (String, String) {
    if field.label() == Label::Repeated {
        let suffix = |entry: &DescriptorProto| format!(".{}.{}", message.name(), entry.name());
        let entry = message
            .nested_type
            .iter()
            .filter(|nested| is_map_entry(nested))
            .find(|entry| field.type_name().ends_with(&suffix(entry)));
        return match entry {
            Some(entry) => {
                let (key, value) = (type_of(&entry.field[0]), type_of(&entry.field[1]));
                (format!("map<{key},{value}>"), "map".into())
            }
            None => (type_of(field), "repeated".into()),
        };
    }
    let label = match field.oneof_index {
        _ if field.proto3_optional() => "optional".into(),
        Some(index) => {
            let index = usize::try_from(index).expect("an index is not negative");
            format!("oneof={}", message.oneof_decl[index].name())
        }
        None => "singular".into(),
    };
    (type_of(field), label)
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(MessageOptions::map_entry)
}

fn type_of(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()).into(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix(".inference.").unwrap_or(name)
}
