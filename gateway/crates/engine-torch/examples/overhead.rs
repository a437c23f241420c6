//! Prints what a run costs beyond tch's bare forward, for a small model: run it with `--release`.
#![expect(clippy::disallowed_types, reason = "measures native code")]

use std::error::Error;
use std::io::{self, Write};
use std::time::Instant;

use engine::{Batch, DataType, Engine, Graph, ModelSource, Tensor};
use engine_torch::{TorchEngine, fixtures};

const ROUNDS: usize = 15;
const CALLS: u32 = 4000;

fn main() -> Result<(), Box<dyn Error>> {
    engine_torch::prepare_process();
    TorchEngine.prepare_thread();
    let fixture = fixtures::mlp();
    let path = std::env::temp_dir().join(format!("overhead-{}.pt", std::process::id()));
    fixture.write_module(&path)?;
    let file = std::fs::read(&path)?;
    let mut bare = tch::CModule::load(&path)?;
    std::fs::remove_file(&path)?;
    bare.set_eval();
    let engine = TorchEngine.load(&ModelSource {
        label: "mlp/1",
        file: &file,
        inputs: &fixture.inputs,
        outputs: &fixture.outputs,
        device: "cpu",
        graph: Graph::Plain,
        samples: &[],
        tolerance: 1e-5,
    })?;
    for rows in [1, 8, 64] {
        let data = vec![0_u8; rows * 64 * 4];
        let tensor = Tensor::new(DataType::Fp32, vec![rows, 64], data.into())?;
        let calls: Vec<Vec<Tensor>> =
            tensor.split_rows(&vec![1; rows]).into_iter().map(|row| vec![row]).collect();
        let batch = Batch::stack(&calls.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let input =
            tch::Tensor::f_zeros([i64::try_from(rows)?, 64], (tch::Kind::Float, tch::Device::Cpu))?;
        let _no_grad = tch::no_grad_guard();
        let (mut native, mut ours) = (f64::MAX, f64::MAX);
        // In turns, best of each: what else the machine does hits both alike.
        for _ in 0..ROUNDS {
            native = native.min(time(|| bare.forward_ts(&[&input]).map(drop))?);
            ours = ours.min(time(|| engine.run(&batch).map(drop))?);
        }
        let more = ours - native;
        writeln!(
            io::stdout(),
            "{rows:>3} rows: tch {native:.2} us, run {ours:.2} us, {more:+.2} us"
        )?;
    }
    Ok(())
}

/// Mean time of a call, in microseconds.
fn time<E>(mut call: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let start = Instant::now();
    for _ in 0..CALLS {
        call()?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS))
}
