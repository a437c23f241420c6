//! What fails, fails with our own words, and leaves nothing behind.

use super::answers::resident;
use super::*;

fn fails(model: &dyn Model, batch: &Batch, fault: Fault) -> EngineError {
    let error = model.run(batch).expect_err("the run is meant to fail");
    assert_eq!(error.fault(), fault, "{error:?}");
    error
}

#[test]
fn the_models_own_words_reach_the_log_and_nobody_else() {
    let model = load(&fixtures::throws(), &[]).unwrap();
    let error = fails(&*model, &one(fp32(&[2, 2], &[1.0, 2.0, -1.0, 0.0])), Fault::Run);
    assert_eq!(error.message(), "the model raised an error on this input");
    assert!(error.detail().unwrap().contains(fixtures::SECRET));
    for shown in [error.to_string(), error.message().to_owned()] {
        assert!(!shown.contains("hunter2") && !shown.contains("/srv"), "{shown}");
    }
    assert!(model.run(&one(fp32(&[1, 2], &[1.0, 2.0]))).is_ok(), "and the next call works");
}

#[test]
fn an_operator_that_throws_fails_the_run() {
    let model = load(&fixtures::lookup(), &[]).unwrap();
    let error = fails(&*model, &one(int64(&[1, 3], &[0, 16, 1])), Fault::Run);
    assert_eq!(error.message(), "the model failed on this input");
    assert!(error.detail().unwrap().contains("index out of range"));
    let run = model.run(&one(int64(&[1, 3], &[0, 15, 1]))).unwrap();
    assert_eq!(floats(&run.outputs[0])[4..8], [15.0, 15.25, 15.5, 15.75]);
}

#[test]
fn a_wrong_shape_fails_the_run() {
    let model = load(&fixtures::mlp(), &[]).unwrap();
    fails(&*model, &one(rows(1, 63)), Fault::Run);
}

#[test]
fn a_wrong_number_of_inputs_is_the_callers_fault() {
    let model = load(&fixtures::add_sub(), &[]).unwrap();
    let error = fails(&*model, &one(rows(1, 4)), Fault::Input);
    assert_eq!(error.message(), "the model takes 2 inputs, got 1");
    let text = Tensor::from_strings(vec![1], &["a"]).unwrap();
    let error = fails(&*model, &Batch::single(&[text.clone(), text], 1), Fault::Input);
    assert_eq!(error.message(), "a TorchScript model takes no BYTES input");
}

#[test]
fn running_out_of_memory_is_named() {
    let source = "def forward(self, x: Tensor):\n    return torch.zeros(1 << 46)\n";
    let model = load(&simple(source, 1), &[]).unwrap();
    let error = fails(&*model, &one(rows(1, 1)), Fault::Memory);
    assert_eq!(error.message(), "memory ran out while the model ran");
}

#[test]
fn words_about_memory_in_the_models_own_source_are_no_proof() {
    let source = "def forward(self, x: Tensor):\n    note = \"CUDA error: out of memory\"\n    \
                  assert len(note) > 3\n    y = x.reshape([7, 7])\n    \
                  print(note)\n    return y\n";
    let model = load(&simple(source, 1), &[]).unwrap();
    fails(&*model, &one(rows(1, 1)), Fault::Run);
    let source = "def forward(self, x: Tensor):\n    assert x.numel() == 0, \"out of memory\"\n    return x\n";
    let model = load(&simple(source, 1), &[]).unwrap();
    fails(&*model, &one(rows(1, 1)), Fault::Run);
}

#[test]
fn answers_other_than_the_declared_ones_are_errors() {
    for (answer, expected) in [
        ("x.to(7)", "output 'y' is FP64, the signature says FP32"),
        (
            "torch.complex(x, x)",
            "output 'y' is of a type that the protocol lacks, the signature says FP32",
        ),
        ("x.sum(1)", "output 'y' has shape [2], the signature says [-1, 4]"),
        ("torch.cat([x, x], 1)", "output 'y' has shape [2, 8], the signature says [-1, 4]"),
        (
            "x[:1]",
            "output 'y' has shape [1, 4] for a batch of 2; its first dimension must be the batch",
        ),
        ("(x, x)", "the model answers with 2 tensors, its signature declares 1 outputs"),
        ("{\"z\": x}", "the model's answer has no output named 'y'"),
        ("{1: x}", "the model answers with a dict whose keys are no strings"),
        ("(x, 3)", "the model answers with a Int where a tensor belongs"),
        ("[[x]]", "the model answers with a GenericList where a tensor belongs"),
        ("((x,),)", "the model answers with a Tuple where a tensor belongs"),
        ("x.to_sparse()", "the model answers with a sparse, nested or quantized tensor"),
        ("float(x.sum())", "the model answers with a Double where a tensor belongs"),
        ("None", "the model answers with a None where a tensor belongs"),
    ] {
        let mut fixture =
            simple(&format!("def forward(self, x: Tensor):\n    return {answer}\n"), 4);
        let model = load(&fixture, &[]).unwrap();
        let error = fails(&*model, &one(rows(2, 4)), Fault::Output);
        assert_eq!(error.message(), expected, "{answer}");

        // With a sample, the load itself says so.
        for graph in [Graph::Auto, Graph::Plain] {
            fixture.graph = graph;
            let error = load(&fixture, &[one(rows(2, 4))]).unwrap_err();
            assert_eq!((error.fault(), error.message()), (Fault::Load, expected), "{answer}");
        }
    }
}

#[test]
fn thousands_of_failures_leave_nothing_behind() {
    let raising = load(&fixtures::throws(), &[]).unwrap();
    let mistaken =
        load(&simple("def forward(self, x: Tensor):\n    return x.sum(1)\n", 65536), &[]).unwrap();
    let failing =
        load(&simple("def forward(self, x: Tensor):\n    return x.reshape([7])\n", 65536), &[])
            .unwrap();
    let negative = fp32(&[32_768, 2], &vec![-1.0; 65_536]);
    let large = rows(1, 65_536);
    let round = |times: usize| {
        for _ in 0..times {
            fails(&*raising, &one(negative.clone()), Fault::Run);
            fails(&*mistaken, &one(large.clone()), Fault::Output);
            fails(&*failing, &one(large.clone()), Fault::Run);
        }
    };
    round(50);
    let before = resident();
    round(1000);
    // A leak of the 256 KiB inputs alone would be 750 MiB.
    let grown = resident().saturating_sub(before);
    assert!(grown < 200 << 20, "{} MiB more than before", grown >> 20);
}
