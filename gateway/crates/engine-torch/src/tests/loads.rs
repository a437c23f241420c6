//! Which files load, and what is said of those that do not.

use super::*;

fn refused(fixture: &Fixture, file: &[u8]) -> EngineError {
    let error = load_bytes(fixture, file, &[]).expect_err("the load is meant to fail");
    assert_eq!(error.fault(), Fault::Load, "{error:?}");
    error
}

#[test]
fn files_that_are_no_module_are_refused_in_our_own_words() {
    let fixture = fixtures::mlp();
    let good = file(&fixture).bytes;
    let mut no_directory = good.clone();
    no_directory.truncate(good.len() / 2);
    let mut no_code = good.clone();
    for at in 0..no_code.len() - 6 {
        if &no_code[at..at + 6] == b"/code/" {
            no_code[at + 1] = b'X';
        }
    }
    for (file, expected) in [
        (Vec::new(), "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git-lfs pointer"),
        (vec![0x80, 0x02, 0x8a, 0x0a, 0x6c], "old format of torch.save"),
        (vec![7; 4096], "not a TorchScript module"),
        (no_directory, "truncated"),
        (no_code, "(torch.save), not a TorchScript module"),
    ] {
        let error = refused(&fixture, &file);
        assert!(error.message().contains(expected), "{error:?}");
        assert!(error.detail().is_some());
        assert!(!error.message().contains("0x"), "no stack trace: {}", error.message());
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let fixture = fixtures::add_sub();
    let good = file(&fixture).bytes;
    for end in (0..good.len() - 1).step_by(97) {
        refused(&fixture, &good[..end]);
    }
}

#[test]
fn a_file_with_flipped_bytes_loads_or_is_refused() {
    let fixture = fixtures::add_sub();
    let good = file(&fixture).bytes;
    for at in (0..good.len()).step_by(13) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        if let Ok(model) = load_bytes(&fixture, &bad, &[]) {
            let _ = model.run(&Batch::single(&[rows(1, 4), rows(1, 4)], 1));
        }
    }
}

#[test]
fn the_signature_must_fit_the_forward_method() {
    let mut fixture = fixtures::add_sub();
    let dropped = fixture.inputs.pop();
    assert_eq!(
        load(&fixture, &[]).unwrap_err().message(),
        "the model's forward takes 2 inputs (a, b), the signature declares 1"
    );
    fixture.inputs.extend(dropped.clone());
    fixture.inputs.extend(dropped);
    assert_eq!(
        load(&fixture, &[]).unwrap_err().message(),
        "the model's forward takes 2 inputs (a, b), the signature declares 3"
    );
}

#[test]
fn arguments_with_defaults_may_be_left_out() {
    let source = "def forward(self, x: Tensor, scale: float = 2.0):\n    return x * scale\n";
    let mut fixture = simple(source, 1);
    let model = load(&fixture, &[]).unwrap();
    let run = model.run(&one(fp32(&[1, 1], &[3.0]))).unwrap();
    assert_eq!(floats(&run.outputs[0]), [6.0]);

    let mut scale = fixture.inputs[0].clone();
    scale.name = "scale".to_owned();
    fixture.inputs.push(scale);
    assert_eq!(
        load(&fixture, &[]).unwrap_err().message(),
        "input 'scale' belongs to forward's argument 'scale', which takes no tensor"
    );
}

#[test]
fn a_module_without_forward_is_refused() {
    let fixture = simple("def predict(self, x: Tensor):\n    return x\n", 1);
    let error = refused(&fixture, &file(&fixture).bytes);
    assert_eq!(error.message(), "the TorchScript module has no forward method");
}

#[test]
fn bytes_in_a_signature_are_refused() {
    let mut fixture = fixtures::times(1);
    fixture.inputs[0].datatype = DataType::Bytes;
    let error = refused(&fixture, &file(&fixtures::times(1)).bytes);
    assert_eq!(error.message(), "'x' is BYTES, which no TorchScript model takes or gives");
}

#[test]
fn devices_that_are_not_there_are_named() {
    let prepared = prepare_process();
    TorchEngine.check_device("cpu").unwrap();
    for device in ["gpu", "cuda", "cuda:", "cuda:-1", "cuda:300", "CPU", ""] {
        let error = TorchEngine.check_device(device).unwrap_err();
        assert_eq!(error.fault(), Fault::Device);
        assert_eq!(error.message(), format!("device '{device}' is not known; use cpu or cuda:0"));
    }
    let error = TorchEngine.check_device("cuda:99").unwrap_err();
    assert_eq!(error.fault(), Fault::Device);
    match &prepared.cuda {
        Ok(()) => assert!(error.message().contains("this machine has"), "{error}"),
        Err(reason) => assert_eq!(error.message(), format!("cuda:99 cannot be used: {reason}")),
    }
}

#[test]
fn every_fixture_loads_and_its_description_names_it() {
    for fixture in fixtures::all().into_iter().chain(fixtures::bad_digits()) {
        load(&fixture, &[]).unwrap();
        let text = fixture.model_toml();
        for spec in fixture.inputs.iter().chain(&fixture.outputs) {
            assert!(text.contains(&format!("name = \"{}\"", spec.name)), "{text}");
        }
    }
}

#[test]
fn a_fixture_is_written_as_a_repository() {
    let folder = TempDir::new().unwrap();
    fixtures::add_sub().write(folder.path(), 3).unwrap();
    let folder = folder.path().join("add_sub");
    assert!(folder.join("3/model.pt").exists());
    assert_eq!(
        std::fs::read_to_string(folder.join("model.toml")).unwrap(),
        "platform = \"torchscript\"\nmax_batch_size = 8\n\n\
         [[input]]\nname = \"a\"\ndtype = \"FP32\"\nshape = [-1, 4]\n\n\
         [[input]]\nname = \"b\"\ndtype = \"FP32\"\nshape = [-1, 4]\n\n\
         [[output]]\nname = \"sum\"\ndtype = \"FP32\"\nshape = [-1, 4]\ntolerance = 1e-5\n\n\
         [[output]]\nname = \"difference\"\ndtype = \"FP32\"\nshape = [-1, 4]\ntolerance = 1e-5\n\n\
         [engine]\ndevice = \"cpu\"\ngraph = \"auto\"\n"
    );
}

#[test]
fn source_that_does_not_compile_is_an_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.pt");
    assert!(fixtures::write_module("def forward(self, x:", &path).is_err());
    assert!(!path.exists());
}
