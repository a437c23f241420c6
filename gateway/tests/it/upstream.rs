//! A gateway as the upstream of another: calls over real sockets, in both protocols.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use engine::{DataType, Tensor};
use penstock::app::App;
use penstock::config::{self, HealthCheck, Upstream, UpstreamProtocol};
use penstock::error::Kind;
use penstock::types::{Deadline, PredictionId, Signature};
use penstock::upstream::{RemoteCall, RemoteModel, Upstreams};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

/// A gateway with an identity model for every datatype.
async fn gateway(folder: &TempDir) -> App {
    for datatype in DataType::ALL {
        let name = datatype.name().to_lowercase();
        let tensor = |name| format!("name = '{name}'\ndtype = '{datatype}'\nshape = [-1, -1]\n");
        let manifest = format!(
            "platform = 'identity'\nmax_batch_size = 4\n[[input]]\n{}[[output]]\n{}",
            tensor("x"),
            tensor("y")
        );
        fs::create_dir_all(folder.path().join(&name).join("3")).unwrap();
        fs::write(folder.path().join(&name).join("model.toml"), manifest).unwrap();
    }
    let text = format!(
        "version = 1\n[listen]\nhttp = '127.0.0.1:0'\ngrpc = '127.0.0.1:0'\nmetrics = 'off'\n\
         admin = 'off'\n[log]\nlevel = 'error'\n[server]\nio_threads = 2\n\
         [engine]\ncpu_threads = 1\n[repository]\npath = '{}'\npoll = 'off'\n",
        folder.path().display()
    );
    let config = config::parse(&text, folder.path()).unwrap();
    App::start(config, None, penstock::app::engines(), None).await.unwrap()
}

fn call<'a>(signature: &'a Signature, tensors: &'a [Tensor]) -> RemoteCall<'a> {
    RemoteCall {
        signature,
        tensors,
        rows: tensors[0].rows(),
        deadline: Deadline::after(Instant::now(), Duration::from_secs(60)),
        priority: None,
        trace: None,
        prediction: PredictionId::new(),
        hops: 0,
        replay: false,
        shadow: false,
    }
}

/// Waits until every endpoint serves the model: with one of them it is ready, too.
async fn ready(model: &RemoteModel) {
    let known = async {
        while !(model.is_ready() && model.status().reason.is_empty()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), known)
        .await
        .unwrap_or_else(|_| panic!("{:?}", model.status()));
}

/// Three rows of two elements whose bytes are all different, NaN among the floats.
fn sample(datatype: DataType) -> Tensor {
    match datatype.size() {
        None => Tensor::from_strings(vec![3, 2], &["", "a", "ü", "\0", "\"", "bytes"]).unwrap(),
        Some(size) => {
            let data: Vec<u8> = match datatype {
                DataType::Bool => vec![1, 0, 0, 1, 1, 1],
                _ => (0..6 * size).map(|at| u8::try_from(255 - at).unwrap()).collect(),
            };
            Tensor::new(datatype, vec![3, 2], data.into()).unwrap()
        }
    }
}

#[tokio::test]
async fn a_gateway_answers_another_in_every_datatype_bit_by_bit() {
    let folder = TempDir::new().unwrap();
    let app = gateway(&folder).await;
    let addresses = app.addresses();
    for (protocol, address) in
        [(UpstreamProtocol::Http, addresses.http), (UpstreamProtocol::Grpc, addresses.grpc)]
    {
        let settings = Upstream::new("other", protocol, vec![address.unwrap().to_string()]);
        let upstreams = Upstreams::start(&[settings], None).unwrap();
        let other: &Arc<_> = upstreams.get("other").unwrap();
        for datatype in DataType::ALL {
            let model = other.model(&datatype.name().to_lowercase(), Some("3"));
            ready(&model).await;
            let signature = model.signature().unwrap();
            assert_eq!((signature.max_batch_size, signature.inputs[0].datatype), (4, datatype));
            let tensors = [sample(datatype)];
            let answer = model.infer(call(&signature, &tensors)).await.unwrap();
            assert_eq!(answer.outputs, tensors, "{protocol:?} {datatype}");
            assert_eq!(&*answer.version, "3");
        }
        // What the other gateway refuses is the caller's matter.
        let model = other.model("fp32", None);
        ready(&model).await;
        let wrong = [Tensor::new(DataType::Fp64, vec![1, 1], vec![0; 8].into()).unwrap()];
        let signature = model.signature().unwrap();
        let refused = model.infer(call(&signature, &wrong)).await.unwrap_err().rejection;
        assert_eq!(refused.kind(), Kind::InvalidInput);
        assert!(refused.public_message().contains("the model takes FP32"), "{refused}");
        let nowhere = other.model("nowhere", None);
        let refused = nowhere.infer(call(&signature, &wrong)).await.unwrap_err().rejection;
        assert_eq!(refused.kind(), Kind::NotReady);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_gateway_that_stops_is_left_before_its_calls_fail() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (first, second) = (gateway(&folders[0]).await, gateway(&folders[1]).await);
    for protocol in [UpstreamProtocol::Http, UpstreamProtocol::Grpc] {
        let address = |app: &App| match protocol {
            UpstreamProtocol::Http => app.addresses().http.unwrap().to_string(),
            UpstreamProtocol::Grpc => app.addresses().grpc.unwrap().to_string(),
        };
        let endpoints = vec![address(&first), address(&second)];
        let every = Some(Duration::from_millis(20));
        let health = HealthCheck { every, ..HealthCheck::default() };
        let settings = Upstream { health, ..Upstream::new("pair", protocol, endpoints) };
        let upstreams = Upstreams::start(&[settings], None).unwrap();
        let model = upstreams.get("pair").unwrap().model("fp32", None);
        ready(&model).await;
        let signature = model.signature().unwrap();
        let tensors = [sample(DataType::Fp32)];
        for _ in 0..50 {
            model.infer(call(&signature, &tensors)).await.unwrap();
        }
        let both = upstreams.status()[0].endpoints.iter().all(|endpoint| endpoint.attempts > 0);
        assert!(both, "{:?}", upstreams.status()[0].endpoints);
    }
    // Calls go on while one of the two stops.
    let address = |app: &App| app.addresses().grpc.unwrap().to_string();
    let endpoints = vec![address(&first), address(&second)];
    let settings = Upstream::new("pair", UpstreamProtocol::Grpc, endpoints);
    let upstreams = Upstreams::start(&[settings], None).unwrap();
    let model = upstreams.get("pair").unwrap().model("fp32", None);
    ready(&model).await;
    let signature = model.signature().unwrap();
    let tensors = [sample(DataType::Fp32)];
    let calling = async {
        loop {
            model.infer(call(&signature, &tensors)).await.unwrap();
        }
    };
    tokio::select! {
        () = calling => {}
        () = first.stop() => {}
    }
    for _ in 0..50 {
        model.infer(call(&signature, &tensors)).await.unwrap();
    }
    second.stop().await;
}
