//! What routes say about themselves over both protocols: whether they are ready, and what they
//! take and give.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use penstock::api::grpc::Grpc;
use penstock::api::rest::Http;
use penstock::app::App;
use penstock::config;
use penstock::identity::digest;
use penstock::types::{Origin, Peer};
use prost::Message;
use proto::inference as pb;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const PATIENCE: Duration = Duration::from_secs(20);
const KEY: &str = "the-key-of-a-client-of-one-route";

/// A gateway with these models, each in three versions, and more settings.
struct Gateway {
    app: App,
    _folder: TempDir,
}

impl Gateway {
    async fn start(models: &[&str], more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let repository = folder.path().join("models");
        fs::create_dir(&repository).unwrap();
        for model in models {
            let tensor = |name| format!("name = '{name}'\ndtype = 'FP32'\nshape = [-1, 2]\n");
            let manifest = format!(
                "platform = 'identity'\nmax_batch_size = 8\n\
                 [[input]]\n{}[[output]]\n{}[versions]\nlatest = 3\n",
                tensor("x"),
                tensor("y")
            );
            for version in ["1", "2", "3"] {
                fs::create_dir_all(repository.join(model).join(version)).unwrap();
            }
            fs::write(repository.join(model).join("model.toml"), manifest).unwrap();
        }
        let text = format!(
            "version = 1\n[listen]\nhttp = '127.0.0.1:0'\ngrpc = '127.0.0.1:0'\n\
             metrics = 'off'\nadmin = 'off'\n[log]\nlevel = 'error'\n[server]\nio_threads = 1\n\
             [engine]\ncpu_threads = 1\n[repository]\npath = '{}'\npoll = 'off'\n{more}",
            repository.display()
        );
        let config = config::parse(&text, folder.path()).unwrap();
        let app = App::start(config, None, penstock::app::engines(), None).await.unwrap();
        Self { app, _folder: folder }
    }

    /// A gateway whose route `name` leads to a model of another.
    async fn before(other: &Self, protocol: &str, name: &str, model: &str) -> Self {
        let addresses = other.app.addresses();
        let address = if protocol == "http" { addresses.http } else { addresses.grpc };
        let more = format!(
            "[[upstream]]\nname = 'behind'\nprotocol = '{protocol}'\nendpoints = ['{}']\n\
             [upstream.health]\nevery = '20ms'\n\
             [[route]]\nname = '{name}'\n\
             [[route.arm]]\nname = 'there'\nupstream = 'behind'\nmodel = '{model}'\n",
            address.unwrap()
        );
        let gateway = Self::start(&[], &more).await;
        let path = format!("/v2/models/{name}/ready");
        let ready = async {
            while gateway.get(&path).await.0 != 200 {
                tokio::task::yield_now().await;
            }
        };
        assert!(timeout(PATIENCE, ready).await.is_ok(), "{name} becomes ready");
        gateway
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> (u16, Value) {
        let http = Http::new(self.app.api().clone());
        let (head, body) = http.call(request, Peer::plain(Origin::Unix)).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), serde_json::from_slice(&body).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Request::get(path).body(Full::default()).unwrap()).await
    }

    /// Whether calls of this path of a model or route would be taken.
    async fn is_ready(&self, path: &str) -> bool {
        match self.get(&format!("/v2/models/{path}/ready")).await {
            (200, _) => true,
            (503, _) => false,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// One unary gRPC call, or its status.
    async fn grpc<A: Message + Default>(
        &self,
        path: &str,
        message: impl Message,
    ) -> Result<A, String> {
        let message = message.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let framed = [&[0], &length[..], &message].concat();
        let request = Request::post(path).header("content-type", "application/grpc");
        let request = request.body(Full::new(Bytes::from(framed))).unwrap();
        let door = Grpc::new(self.app.api()).unwrap();
        let (head, body) = door.call(request, Peer::plain(Origin::Unix)).await.into_parts();
        if let Some(status) = head.headers.get("grpc-status") {
            return Err(status.to_str().unwrap().to_owned());
        }
        let body = body.collect().await.unwrap().to_bytes();
        Ok(A::decode(&body[5..]).unwrap())
    }

    async fn of_service<A: Message + Default>(
        &self,
        call: &str,
        message: impl Message,
    ) -> Result<A, String> {
        self.grpc(&format!("/inference.GRPCInferenceService/{call}"), message).await
    }

    /// Readiness of a name as `ModelReady` has it and as the health service has it.
    async fn over_grpc(&self, name: &str) -> (bool, i32) {
        let request = pb::ModelReadyRequest { name: name.into(), version: String::new() };
        let said: pb::ModelReadyResponse = self.of_service("ModelReady", request).await.unwrap();
        let request = HealthCheckRequest { service: name.into() };
        let health = self.grpc("/grpc.health.v1.Health/Check", request).await;
        let health: HealthCheckResponse = health.unwrap();
        (said.ready, health.status)
    }

    /// Opens the breaker of a version, or closes it.
    fn trip(&self, version: &str, open: bool) {
        let snapshot = self.app.api().pipeline.snapshots.load();
        let breaker = &snapshot.find("digits", Some(version)).unwrap().breaker;
        if open { breaker.hold_open() } else { breaker.reset() }
    }
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// Routes that lead to `digits`, one arm with all callers and one with none.
fn spare(name: &str, fallback: &str, more: &str) -> String {
    format!(
        "[[route]]\nname = '{name}'\nfallback = '{fallback}'\n\
         [[route.arm]]\nname = 'main'\nmodel = 'digits'\nversion = '2'\nshare = '100%'\n\
         [[route.arm]]\nname = 'spare'\nmodel = 'digits'\nversion = '1'\nshare = '0%'\n{more}"
    )
}

#[tokio::test]
async fn a_route_is_ready_as_its_arms_are_and_not_as_the_highest_version_is() {
    let routes = "[[route]]\nname = 'digits'\n\
        [[route.arm]]\nname = 'stable'\nversion = '1'\n\
        [[route.arm]]\nname = 'canary'\nversion = '2'\nshare = '5%'\n\
        [[route.shadow]]\nname = 'next'\nversion = '3'\n";
    let gateway = Gateway::start(&["digits"], routes).await;
    gateway.trip("3", true);
    assert!(gateway.is_ready("digits").await, "a shadow answers nobody");
    assert_eq!(gateway.over_grpc("digits").await, (true, SERVING));
    assert!(!gateway.is_ready("digits/versions/3").await, "a number names the version");
    gateway.trip("1", true);
    assert!(gateway.is_ready("digits").await, "some callers are answered");
    assert!(!gateway.is_ready("digits/versions/stable").await);
    assert!(gateway.is_ready("digits/versions/canary").await);
    gateway.trip("2", true);
    gateway.trip("3", false);
    assert!(!gateway.is_ready("digits").await, "the highest version answers no call of the route");
    assert_eq!(gateway.over_grpc("digits").await, (false, NOT_SERVING));
    assert!(gateway.is_ready("digits/versions/3").await);
    gateway.app.stop().await;
}

#[tokio::test]
async fn what_stands_in_for_an_arm_makes_a_route_ready_and_an_arm_without_callers_does_not() {
    let declared = "[[route.static]]\noutput = 'y'\ndtype = 'FP32'\nshape = [2]\ndata = [0, 1]\n";
    let routes = [
        spare("idle", "refuse", ""),
        spare("reserve", "spare", ""),
        spare("declared", "static", declared),
    ];
    let gateway = Gateway::start(&["digits"], &routes.concat()).await;
    gateway.trip("2", true);
    let now = async || {
        let mut ready = vec![];
        for route in ["idle", "reserve", "declared"] {
            ready.push(gateway.is_ready(route).await);
        }
        ready
    };
    assert_eq!(now().await, [false, true, true]);
    gateway.trip("1", true);
    assert_eq!(now().await, [false, false, true]);
    gateway.app.stop().await;
}

#[tokio::test]
async fn a_route_without_a_model_of_its_name_describes_what_it_takes_and_gives() {
    let key = digest(KEY.as_bytes());
    let routes = spare("alias", "refuse", "")
        + &format!(
            "[auth]\nanonymous = ['predict']\n\
             [[auth.key]]\nname = 'a'\nmodels = ['alias']\nhashes = ['{key}']\n"
        );
    let gateway = Gateway::start(&["digits"], &routes).await;
    let (status, alias) = gateway.get("/v2/models/alias").await;
    assert_eq!(status, 200, "{alias}");
    let (_, model) = gateway.get("/v2/models/digits").await;
    assert_eq!((&alias["name"], &alias["versions"]), (&json!("alias"), &json!(["main", "spare"])));
    for same in ["platform", "inputs", "outputs"] {
        assert_eq!(alias[same], model[same]);
    }
    let said = &alias["properties"];
    assert_eq!((&said["arm"], &said["version"]), (&json!("main"), &json!("2")));
    let (_, spare) = gateway.get("/v2/models/alias/versions/spare").await;
    assert_eq!(spare["properties"]["version"], "1");
    let (_, config) = gateway.get("/v2/models/alias/versions/spare/config").await;
    assert_eq!((&config["name"], &config["max_batch_size"]), (&json!("alias"), &json!(8)));
    for path in ["/versions/nobody", "/versions/nobody/ready", "/versions/1", "/stats"] {
        let (status, refused) = gateway.get(&format!("/v2/models/alias{path}")).await;
        assert_eq!(status, 404, "{path}: {refused}");
    }
    let named = |name: &str| pb::ModelMetadataRequest { name: name.into(), version: "main".into() };
    let said = gateway.of_service("ModelMetadata", named("alias")).await;
    let said: pb::ModelMetadataResponse = said.unwrap();
    assert_eq!((said.name.as_str(), said.inputs[0].shape.as_slice()), ("alias", &[-1, 2][..]));
    // Whoever may call the route alone sees it alone.
    assert_eq!(gateway.get("/v2/models").await.1, json!({ "models": ["alias", "digits"] }));
    let own = |path: &str| {
        let request = Request::get(path).header("x-api-key", KEY);
        gateway.ask(request.body(Full::default()).unwrap())
    };
    assert_eq!(own("/v2/models").await.1, json!({ "models": ["alias"] }));
    assert_eq!(own("/v2/models/alias").await.0, 200);
    assert_eq!(own("/v2/models/digits").await.0, 403);
    let index = Request::post("/v2/repository/index").body(Full::default()).unwrap();
    let (_, index) = gateway.ask(index).await;
    assert!(index.as_array().unwrap().iter().all(|entry| entry["name"] == "digits"), "{index}");
    gateway.app.stop().await;
}

#[tokio::test]
async fn a_gateway_serves_the_route_of_another_that_has_no_model_for_it() {
    for protocol in ["http", "grpc"] {
        let last = Gateway::start(&["digits"], "").await;
        let middle = Gateway::before(&last, protocol, "relay", "digits").await;
        let first = Gateway::before(&middle, protocol, "far", "relay").await;
        let (status, said) = first.get("/v2/models/far").await;
        assert_eq!((status, &said["platform"]), (200, &json!("penstock_route")), "{said}");
        assert_eq!(said["versions"], json!(["there"]));
        let tensor = |name| json!([{ "name": name, "datatype": "FP32", "shape": [-1, 2] }]);
        assert_eq!((&said["inputs"], &said["outputs"]), (&tensor("x"), &tensor("y")));
        let (_, config) = first.get("/v2/models/far/config").await;
        let size = (&config["name"], &config["max_batch_size"]);
        assert_eq!(size, (&json!("far"), &json!(8)), "{config}");
        let asked = pb::ModelConfigRequest { name: "far".into(), version: "there".into() };
        let config: pb::ModelConfigResponse = first.of_service("ModelConfig", asked).await.unwrap();
        let config = config.config.unwrap();
        assert_eq!((config.max_batch_size, config.input[0].dims.as_slice()), (8, &[2][..]));
        assert_eq!(first.over_grpc("far").await, (true, SERVING));
        assert_eq!(first.get("/v2/models").await.1, json!({ "models": ["far"] }));
        let call = json!({
            "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2.0] }],
        });
        let call = Request::post("/v2/models/far/infer").body(call.to_string().into_bytes());
        let (status, answer) = first.ask(call.unwrap().map(|body| Full::new(body.into()))).await;
        assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([1.5, -2.0])), "{answer}");
        for gateway in [first, middle, last] {
            gateway.app.stop().await;
        }
    }
}
