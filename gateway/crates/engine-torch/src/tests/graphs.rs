//! Which form of the graph runs, and that no other is trusted unseen.

use super::*;
use std::num::NonZeroUsize;

fn note(fixture: &Fixture, graph: Graph, samples: &[Batch]) -> String {
    let fixture = Fixture { graph, ..fixture.clone() };
    let model = load(&fixture, samples).unwrap();
    model.notes()[0].clone()
}

#[test]
fn other_forms_that_agree_are_used() {
    let samples = [one(rows(1, 64)), one(rows(8, 64))];
    let mlp = fixtures::mlp();
    assert_eq!(note(&mlp, Graph::Plain, &samples), "graph: plain");
    assert_eq!(note(&mlp, Graph::Frozen, &samples), "graph: frozen");
    assert_eq!(note(&mlp, Graph::Optimized, &samples), "graph: optimized");
    let auto = note(&mlp, Graph::Auto, &samples);
    assert!(
        auto.contains(" (optimized: ") && auto.contains(" times as fast as plain at 1 row, "),
        "{auto}"
    );
    assert!(auto.contains(" at 8"), "every size is told: {auto}");
    let both = note(&mlp, Graph::Both, &samples);
    assert!(both.starts_with("graph: both plain and "), "{both}");
}

#[test]
fn both_forms_give_their_answers_to_every_size() {
    let mlp = fixtures::mlp();
    let file = file(&mlp);
    let samples = [one(rows(1, 64)), one(rows(8, 64)), one(rows(64, 64))];
    let load = |graph| {
        let options = EngineOptions { graph, ..EngineOptions::default() };
        load_as(&mlp, &file.bytes, options, &samples).unwrap()
    };
    let (plain, both) = (load(Graph::Plain), load(Graph::Both));
    // Often enough that each form is measured again.
    for round in 0..600 {
        let batch = one(rows(1 + round % 64, 64));
        let expected = floats(&plain.run(&batch).unwrap().outputs[0]);
        for (expected, actual) in expected.iter().zip(floats(&both.run(&batch).unwrap().outputs[0]))
        {
            assert!((expected - actual).abs() < 1e-3, "{expected} and {actual}");
        }
    }
}

#[test]
fn without_samples_nothing_is_verified_and_the_note_says_so() {
    let mlp = fixtures::mlp();
    for graph in [Graph::Auto, Graph::Both] {
        assert_eq!(note(&mlp, graph, &[]), "graph: plain (no sample to verify another form on)");
    }
    assert_eq!(
        note(&mlp, Graph::Optimized, &[]),
        "graph: optimized (not verified: there is no sample)"
    );
}

#[test]
fn a_form_that_answers_otherwise_is_dropped() {
    let chance = simple("def forward(self, x: Tensor):\n    return torch.rand_like(x)\n", 4);
    let sample = [one(rows(1, 4))];
    for (graph, name) in [(Graph::Frozen, "frozen"), (Graph::Optimized, "optimized")] {
        let note = note(&chance, graph, &sample);
        let start = format!("graph: plain ({name} failed: output 'y' differs by ");
        assert!(note.starts_with(&start), "{note}");
    }
    let note = note(&chance, Graph::Auto, &sample);
    assert!(note.contains("optimized failed: ") && note.contains("; frozen failed: "), "{note}");
    let both = self::note(&chance, Graph::Both, &sample);
    assert!(both.starts_with("graph: plain (optimized failed: "), "{both}");
}

#[test]
fn a_module_that_counts_its_runs_stays_plain() {
    // Its answers depend on the runs before.
    let mut counting = simple(
        "def forward(self, x: Tensor):\n    self.calls.add_(1)\n    return x + self.calls\n",
        4,
    );
    counting.weights = vec![fixtures::Weights { name: "calls", shape: vec![1], values: vec![0.0] }];
    let note = note(&counting, Graph::Frozen, &[one(rows(1, 4))]);
    assert!(note.starts_with("graph: plain (frozen failed: "), "{note}");
}

#[test]
fn dropout_is_off_in_every_form() {
    let dropout = simple(
        "def forward(self, x: Tensor):\n    return torch.dropout(x, 0.5, self.training)\n",
        4,
    );
    for graph in [Graph::Auto, Graph::Plain, Graph::Frozen, Graph::Optimized] {
        let fixture = Fixture { graph, ..dropout.clone() };
        let input = rows(2, 4);
        let model = load(&fixture, &[one(input.clone())]).unwrap();
        assert_eq!(model.run(&one(input.clone())).unwrap().outputs, [input]);
    }
}

#[test]
fn a_sample_that_the_model_refuses_is_left_out() {
    let throws = fixtures::throws();
    let bad = one(fp32(&[1, 2], &[-1.0, 0.0]));
    let model = load(&throws, &[bad.clone(), one(fp32(&[1, 2], &[1.0, 0.0]))]).unwrap();
    assert_eq!(model.notes()[1..], ["sample 1: the model fails on it, left out"]);
    let model = load(&throws, &[bad]).unwrap();
    assert_eq!(model.notes()[0], "graph: plain (no sample to verify another form on)");
}

#[test]
fn transforming_leaves_the_module_as_it_was_even_when_it_was_saved_frozen() {
    prepare_process();
    let fixture = fixtures::mlp();
    let plain = crate::ffi::Module::load(&file(&fixture).bytes, None, NonZeroUsize::MIN).unwrap();
    let frozen = plain.transform(false).unwrap();
    let optimized = frozen.transform(true).unwrap();
    let batch = one(rows(8, 64));
    let shape = crate::run::Shape {
        inputs: 1,
        outputs: fixture.outputs.clone(),
        reduced: false,
        on_caller: true,
    };
    let answer = |module| floats(&crate::run::run(module, &shape, &batch).unwrap().outputs[0]);
    let before = answer(&frozen);
    assert_eq!(answer(&plain), before);
    for (plain, optimized) in before.iter().zip(answer(&optimized)) {
        assert!((plain - optimized).abs() < 1e-4);
    }
    assert_eq!(answer(&frozen), before);
}
