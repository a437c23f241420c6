//! From what endpoints say about a model to its signature, and what to do when they differ.

use std::sync::Arc;

use engine::{DataType, TensorSpec};

use super::failure::plain;
use super::wire::{Declared, Description};
use crate::types::{OutputSpec, Signature};

/// Largest batch where a model batches and nobody says how far.
const UNBOUNDED: usize = i32::MAX as usize;
/// As models that are served here have it by default.
const TOLERANCE: f64 = 1e-5;
/// More inputs or outputs than this are a mistake.
const MOST: usize = 1024;

/// What one endpoint makes of a model.
#[derive(Debug, Clone, Default)]
pub(super) enum View {
    #[default]
    Unknown,
    /// Why it does not serve it.
    Away(String),
    Serves(Arc<Signature>),
}

/// The signature that a description gives.
///
/// Where the endpoint has no configuration to show, a model batches if the first dimension of
/// every input and output is open. However large its batches, larger calls are passed on: the
/// endpoint knows whether it splits them.
///
/// # Errors
/// Why the model cannot be called with it, fit for operators.
pub(super) fn signature(description: &Description) -> Result<Signature, String> {
    let inputs = specs("inputs", &description.inputs)?;
    let outputs = specs("outputs", &description.outputs)?;
    let is_open = |spec: &TensorSpec| spec.shape.first() == Some(&-1);
    let batches = inputs.iter().chain(&outputs).all(is_open);
    let max_batch_size = match description.max_batch_size {
        Some(size) if size > 0 && !batches => {
            return Err(format!("has max_batch_size {size}, but a first dimension that is fixed"));
        }
        Some(size) => size,
        None if batches => UNBOUNDED,
        None => 0,
    };
    let output = |spec| OutputSpec { spec, labels: vec![], tolerance: TOLERANCE, finite: false };
    Ok(Signature {
        inputs,
        outputs: outputs.into_iter().map(output).collect(),
        max_batch_size,
        splits: true,
    })
}

fn specs(what: &str, declared: &[Declared]) -> Result<Vec<TensorSpec>, String> {
    // MLServer's answer for models without a declared signature.
    if declared.is_empty() {
        return Err(format!(
            "names no {what} in its metadata, without which calls cannot be checked"
        ));
    }
    if declared.len() > MOST {
        return Err(format!("names more than {MOST} {what}"));
    }
    let mut specs: Vec<TensorSpec> = Vec::with_capacity(declared.len());
    for one in declared {
        let name = plain(&one.name);
        let wrong = |error: &str| format!("names '{name}' among its {what}, {error}");
        let datatype: DataType = one
            .datatype
            .parse()
            .map_err(|_| wrong(&format!("of the datatype '{}'", plain(&one.datatype))))?;
        if one.name.is_empty() || one.shape.iter().any(|&size| size < -1) {
            return Err(wrong("without a name or with a shape that is none"));
        }
        if specs.iter().any(|spec| spec.name == one.name) {
            return Err(wrong("twice"));
        }
        specs.push(TensorSpec { name: one.name.clone(), datatype, shape: one.shape.clone() });
    }
    Ok(specs)
}

/// Whether calls and answers of one are those of the other; the order of names says nothing.
pub(super) fn agree(one: &Signature, other: &Signature) -> bool {
    let same = |one: Vec<&TensorSpec>, other: Vec<&TensorSpec>| {
        one.len() == other.len() && one.iter().all(|spec| other.contains(spec))
    };
    let outputs = |signature: &'_ Signature| -> Vec<TensorSpec> {
        signature.outputs.iter().map(|output| output.spec.clone()).collect()
    };
    let (outputs, others) = (outputs(one), outputs(other));
    (one.max_batch_size > 0) == (other.max_batch_size > 0)
        && same(one.inputs.iter().collect(), other.inputs.iter().collect())
        && same(outputs.iter().collect(), others.iter().collect())
}

/// The signature that most endpoints serve. Where as many serve another one, `current` stays, else
/// that of the endpoint which stands first.
pub(super) fn prevailing(
    views: &[View],
    current: Option<&Arc<Signature>>,
) -> Option<Arc<Signature>> {
    let served = || {
        views.iter().filter_map(|view| match view {
            View::Serves(signature) => Some(signature),
            _ => None,
        })
    };
    let votes = |signature: &Arc<Signature>| served().filter(|s| agree(s, signature)).count();
    let mut best = current.map(|current| (votes(current), current)).filter(|(votes, _)| *votes > 0);
    for signature in served() {
        let votes = votes(signature);
        if best.is_none_or(|(most, _)| votes > most) {
            best = Some((votes, signature));
        }
    }
    // Nobody serves it now: what is known is kept for when somebody does.
    best.map(|(_, signature)| signature.clone()).or_else(|| current.cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &str, datatype: &str, shape: &[i64]) -> Declared {
        Declared { name: name.into(), datatype: datatype.into(), shape: shape.into() }
    }

    fn description(max_batch_size: Option<usize>, first: i64) -> Description {
        Description {
            inputs: vec![declared("x", "FP32", &[first, 4])],
            outputs: vec![declared("y", "FP32", &[first, 2])],
            max_batch_size,
        }
    }

    #[test]
    fn a_model_batches_as_its_configuration_says_or_its_shapes_do() {
        let size = |max, first| signature(&description(max, first)).map(|s| s.max_batch_size);
        assert_eq!(size(Some(8), -1), Ok(8));
        assert_eq!(size(Some(0), -1), Ok(0));
        assert_eq!(size(None, -1), Ok(UNBOUNDED));
        assert_eq!(size(None, 3), Ok(0));
        assert!(size(Some(8), 3).unwrap_err().contains("fixed"));
    }

    #[test]
    fn what_cannot_be_called_says_why() {
        let with = |inputs| signature(&Description { inputs, ..description(None, -1) });
        assert!(with(vec![]).unwrap_err().contains("names no inputs"));
        assert!(with(vec![declared("x", "FP8", &[1])]).unwrap_err().contains("'FP8'"));
        assert!(with(vec![declared("x", "FP32", &[-2])]).unwrap_err().contains("shape"));
        let twice = declared("x", "FP32", &[1]);
        assert!(with(vec![twice.clone(), twice]).unwrap_err().contains("twice"));
    }

    #[test]
    fn most_endpoints_decide_and_ties_change_nothing() {
        let served = |first| Arc::new(signature(&description(None, first)).unwrap());
        let (batching, fixed) = (served(-1), served(1));
        let views = |all: &[&Arc<Signature>]| -> Vec<View> {
            all.iter().map(|signature| View::Serves(Arc::clone(signature))).collect()
        };
        let found = |views: &[View], current| prevailing(views, current).unwrap();
        let tie = views(&[&batching, &fixed]);
        assert_eq!(found(&tie, None), batching);
        assert_eq!(found(&tie, Some(&fixed)), fixed);
        let most = views(&[&batching, &fixed, &fixed]);
        assert_eq!(found(&most, Some(&batching)), fixed);
        let nobody = [View::Unknown, View::Away("it is loading".into())];
        assert_eq!(found(&nobody, Some(&batching)), batching);
        assert!(prevailing(&nobody, None).is_none());
    }

    #[test]
    fn the_order_of_names_is_no_difference() {
        let mut one = description(None, -1);
        one.inputs.push(declared("z", "INT64", &[-1, 1]));
        let first = signature(&one).unwrap();
        one.inputs.reverse();
        assert!(agree(&first, &signature(&one).unwrap()));
        one.inputs.pop();
        assert!(!agree(&first, &signature(&one).unwrap()));
    }
}
