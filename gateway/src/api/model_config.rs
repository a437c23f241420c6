//! The model configuration extension: a manifest in the protocol's `ModelConfig`, and back for
//! load calls that bring one.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::{DataType, TensorSpec};
use proto::inference::{self as pb, ModelConfig, model_config, model_version_policy};

use super::proto_json;
use crate::error::{Kind, Rejection};
use crate::models::{Manifest, ServedVersion, VersionPolicy};
use crate::snapshot::Backend;
use crate::types::{OutputSpec, Priority, Signature, Version};

/// The platform as metadata names it: framework and format.
#[must_use]
pub fn platform(manifest: &Manifest) -> &str {
    match manifest.platform.as_str() {
        "torchscript" => "pytorch_torchscript",
        other => other,
    }
}

/// The same for whatever answers; of models elsewhere it is not known.
#[must_use]
pub fn platform_of(backend: &Backend) -> &str {
    backend.local().map_or("upstream", |served| platform(&served.manifest))
}

/// The configuration of a served version. Hash, lineage and what the engine decided stand in
/// `parameters`, where every client can read them.
#[must_use]
pub fn of_version(served: &ServedVersion) -> ModelConfig {
    let manifest = &served.manifest;
    let signature = served.signature();
    let max_batch_size = i32::try_from(signature.max_batch_size).unwrap_or(i32::MAX);
    let dims = |spec: &TensorSpec| {
        let batch_dimension = usize::from(max_batch_size > 0);
        spec.shape.iter().skip(batch_dimension).copied().collect::<Vec<_>>()
    };
    let is_cpu = manifest.device == "cpu";
    ModelConfig {
        name: served.model.to_string(),
        platform: platform(manifest).to_owned(),
        backend: if manifest.platform == "torchscript" { "pytorch" } else { "" }.to_owned(),
        version_policy: Some(version_policy(&manifest.policy)),
        max_batch_size,
        input: signature
            .inputs
            .iter()
            .enumerate()
            .map(|(index, spec)| pb::ModelInput {
                optional: manifest.contract.as_ref().is_some_and(|c| c.is_optional(index)),
                name: spec.name.clone(),
                data_type: data_type(spec.datatype) as i32,
                dims: dims(spec),
                ..pb::ModelInput::default()
            })
            .collect(),
        output: signature
            .outputs
            .iter()
            .map(|output| pb::ModelOutput {
                name: output.spec.name.clone(),
                data_type: data_type(output.spec.datatype) as i32,
                dims: dims(&output.spec),
                ..pb::ModelOutput::default()
            })
            .collect(),
        instance_group: vec![pb::ModelInstanceGroup {
            name: format!("{}_{}", served.model, manifest.device),
            kind: if is_cpu {
                pb::model_instance_group::Kind::Cpu as i32
            } else {
                pb::model_instance_group::Kind::Gpu as i32
            },
            count: 1,
            gpus: manifest
                .device
                .strip_prefix("cuda:")
                .and_then(|i| i.parse().ok())
                .into_iter()
                .collect(),
            ..pb::ModelInstanceGroup::default()
        }],
        default_model_filename: crate::models::repository::MODEL_FILE.to_owned(),
        scheduling_choice: (max_batch_size > 0)
            .then(|| model_config::SchedulingChoice::DynamicBatching(dynamic_batching(manifest))),
        parameters: served
            .properties()
            .into_iter()
            .map(|(key, string_value)| (key, pb::ModelParameter { string_value }))
            .collect(),
        model_transaction_policy: Some(pb::ModelTransactionPolicy { decoupled: false }),
        ..ModelConfig::default()
    }
}

fn dynamic_batching(manifest: &Manifest) -> pb::ModelDynamicBatching {
    let batching = &manifest.batching;
    let delay = u64::try_from(batching.max_delay.as_micros()).unwrap_or(u64::MAX);
    pb::ModelDynamicBatching {
        max_queue_delay_microseconds: delay,
        priority_levels: u64::from(Priority::LEAST),
        default_priority_level: u64::from(batching.priority.level()),
        ..pb::ModelDynamicBatching::default()
    }
}

/// The manifest of an uploaded model, out of the configuration that its load call brings.
///
/// # Errors
/// `InvalidInput` for what cannot be a model, `Unsupported` for what this server does not do.
pub fn to_manifest(text: &str) -> Result<Manifest, Rejection> {
    let config = parse(text)?;
    refuse_unsupported(&config)?;
    let max_batch_size = usize::try_from(config.max_batch_size)
        .map_err(|_| Rejection::invalid("config: max_batch_size must not be negative"))?;
    let platform = match (config.platform.as_str(), config.backend.as_str()) {
        ("identity", _) | ("", "identity") => "identity",
        ("" | "pytorch_libtorch" | "pytorch_torchscript", "" | "pytorch") => "torchscript",
        (platform, backend) => {
            return Err(Rejection::new(
                Kind::Unsupported,
                format!("config: platform '{platform}' with backend '{backend}' is not supported"),
            ));
        }
    };
    let inputs = config
        .input
        .iter()
        .map(|input| spec(&input.name, input.data_type, &input.dims, max_batch_size));
    let outputs = config.output.iter().map(|output| {
        let spec = spec(&output.name, output.data_type, &output.dims, max_batch_size)?;
        Ok(OutputSpec { spec, labels: vec![], tolerance: 1e-5, finite: false })
    });
    let signature = Signature {
        inputs: inputs.collect::<Result<_, Rejection>>()?,
        outputs: outputs.collect::<Result<_, Rejection>>()?,
        max_batch_size,
        splits: true,
    };
    if signature.inputs.is_empty() || signature.outputs.is_empty() {
        return Err(Rejection::invalid("config: input and output are needed, shapes included"));
    }
    let mut manifest = Manifest::parse(&format!(
        "platform = \"{platform}\"\nmax_batch_size = {max_batch_size}\n\
         [[input]]\nname = \"-\"\ndtype = \"FP32\"\nshape = [-1]\n\
         [[output]]\nname = \"-\"\ndtype = \"FP32\"\nshape = [-1]\n"
    ))
    .map_err(|problems| Rejection::invalid(format!("config: {}", problems[0])))?;
    manifest.signature = Arc::new(signature);
    if let Some(policy) = config.version_policy {
        manifest.policy = read_policy(&policy)?;
    }
    Ok(manifest)
}

fn parse(text: &str) -> Result<ModelConfig, Rejection> {
    proto_json::from_json("ModelConfig", text)
        .map_err(|error| Rejection::invalid(format!("config: {error}")))
}

/// Everything set beyond what a manifest can express is refused, never silently dropped.
fn refuse_unsupported(config: &ModelConfig) -> Result<(), Rejection> {
    let rest = ModelConfig {
        name: String::new(),
        platform: String::new(),
        backend: String::new(),
        version_policy: None,
        max_batch_size: 0,
        input: vec![],
        output: vec![],
        default_model_filename: String::new(),
        ..config.clone()
    };
    if rest == ModelConfig::default() {
        return Ok(());
    }
    Err(Rejection::new(
        Kind::Unsupported,
        "config: only name, platform, backend, version_policy, max_batch_size, input, output and \
         default_model_filename can be set by a load call",
    ))
}

fn spec(
    name: &str,
    data_type: i32,
    dims: &[i64],
    max_batch_size: usize,
) -> Result<TensorSpec, Rejection> {
    let datatype = DataType::ALL
        .into_iter()
        .find(|known| self::data_type(*known) as i32 == data_type)
        .ok_or_else(|| Rejection::invalid(format!("config: '{name}' needs a data_type")))?;
    if name.is_empty() || dims.iter().any(|&size| size < -1 || size == 0) {
        return Err(Rejection::invalid(format!("config: '{name}' needs a name and valid dims")));
    }
    let batch = (max_batch_size > 0).then_some(-1);
    let shape = batch.into_iter().chain(dims.iter().copied()).collect();
    Ok(TensorSpec { name: name.to_owned(), datatype, shape })
}

fn version_policy(policy: &VersionPolicy) -> pb::ModelVersionPolicy {
    use model_version_policy::{All, Latest, PolicyChoice, Specific};
    let choice = match policy {
        VersionPolicy::Latest(count) => {
            PolicyChoice::Latest(Latest { num_versions: u32::try_from(*count).unwrap_or(u32::MAX) })
        }
        VersionPolicy::All => PolicyChoice::All(All {}),
        VersionPolicy::Specific(versions) => PolicyChoice::Specific(Specific {
            versions: versions.iter().map(|v| i64::try_from(v.0).unwrap_or(i64::MAX)).collect(),
        }),
    };
    pb::ModelVersionPolicy { policy_choice: Some(choice) }
}

fn read_policy(policy: &pb::ModelVersionPolicy) -> Result<VersionPolicy, Rejection> {
    use model_version_policy::PolicyChoice;
    let invalid = || Rejection::invalid("config: version_policy names no version");
    Ok(match &policy.policy_choice {
        None => VersionPolicy::Latest(1),
        Some(PolicyChoice::All(_)) => VersionPolicy::All,
        Some(PolicyChoice::Latest(latest)) if latest.num_versions > 0 => {
            VersionPolicy::Latest(latest.num_versions as usize)
        }
        Some(PolicyChoice::Specific(specific)) if !specific.versions.is_empty() => {
            let versions = specific.versions.iter().map(|&version| {
                u64::try_from(version).ok().filter(|&v| v > 0).map(Version).ok_or_else(invalid)
            });
            VersionPolicy::Specific(versions.collect::<Result<BTreeSet<_>, _>>()?)
        }
        Some(_) => return Err(invalid()),
    })
}

fn data_type(datatype: DataType) -> pb::DataType {
    match datatype {
        DataType::Bool => pb::DataType::TypeBool,
        DataType::Uint8 => pb::DataType::TypeUint8,
        DataType::Uint16 => pb::DataType::TypeUint16,
        DataType::Uint32 => pb::DataType::TypeUint32,
        DataType::Uint64 => pb::DataType::TypeUint64,
        DataType::Int8 => pb::DataType::TypeInt8,
        DataType::Int16 => pb::DataType::TypeInt16,
        DataType::Int32 => pb::DataType::TypeInt32,
        DataType::Int64 => pb::DataType::TypeInt64,
        DataType::Fp16 => pb::DataType::TypeFp16,
        DataType::Bf16 => pb::DataType::TypeBf16,
        DataType::Fp32 => pb::DataType::TypeFp32,
        DataType::Fp64 => pb::DataType::TypeFp64,
        DataType::Bytes => pb::DataType::TypeString,
    }
}
