//! `features` of inputs and outputs: what the scalars of an item are called in the prediction log.

use std::collections::BTreeSet;

use engine::TensorSpec;

use crate::config::reader::Section;
use crate::types::Signature;

const MAX_FEATURES: usize = 65_536;
/// In bytes: it is a part of a column's name.
const MAX_NAME: usize = 128;

/// Names of the scalars of each input and output, row-major without the batch dimension; nothing
/// for tensors whose scalars have no names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    pub inputs: Vec<Vec<String>>,
    pub outputs: Vec<Vec<String>>,
}

impl Features {
    pub(super) fn check(&self, root: &Section<'_>, signature: &Signature) {
        let skipped = usize::from(signature.max_batch_size > 0);
        let inputs = signature.inputs.iter().zip(&self.inputs).enumerate();
        let inputs = inputs.map(|(index, (spec, names))| (format!("input[{index}]"), spec, names));
        let outputs = signature.outputs.iter().zip(&self.outputs).enumerate();
        let outputs = outputs
            .map(|(index, (output, names))| (format!("output[{index}]"), &output.spec, names));
        for (path, spec, names) in inputs.chain(outputs).filter(|(_, _, names)| !names.is_empty()) {
            if let Some(text) = wrong(spec, skipped, names) {
                root.problem(&format!("{path}.features"), text);
            }
        }
    }
}

fn wrong(spec: &TensorSpec, skipped: usize, names: &[String]) -> Option<String> {
    let sizes = spec.shape.iter().skip(skipped);
    let scalars = sizes.map(|&size| usize::try_from(size).ok());
    let scalars = scalars.reduce(|product, size| product?.checked_mul(size?)).unwrap_or(Some(1));
    let unique: BTreeSet<_> = names.iter().collect();
    match scalars {
        None => Some("names need a shape without variable dimensions".to_owned()),
        Some(count) if count != names.len() => {
            Some(format!("has {} names, an item has {count} scalars", names.len()))
        }
        Some(count) if count > MAX_FEATURES => Some(format!("has more than {MAX_FEATURES} names")),
        Some(_) if unique.len() < names.len() => Some("has a name twice".to_owned()),
        Some(_) if names.iter().any(|name| name.is_empty() || name.len() > MAX_NAME) => {
            Some(format!("names have 1 to {MAX_NAME} bytes"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::models::manifest::Manifest;

    fn read(features: &str) -> Result<Vec<String>, String> {
        let text = format!(
            "max_batch_size = 4\n\
             [[input]]\nname = 'x'\ndtype = 'FP32'\nshape = [-1, 2]\nfeatures = {features}\n\
             [[output]]\nname = 'y'\ndtype = 'FP32'\nshape = [-1, -1]\n"
        );
        let manifest = Manifest::parse(&text).map_err(|found| found[0].to_string())?;
        Ok(manifest.features.inputs[0].clone())
    }

    #[test]
    fn scalars_of_an_item_have_names_or_none_has() {
        assert_eq!(read("['age', 'zip']").unwrap(), ["age", "zip"]);
        assert_eq!(read("[]").unwrap(), [""; 0]);
        for (names, text) in [
            ("['age']", "input[0].features: has 1 names, an item has 2 scalars"),
            ("['age', 'age']", "input[0].features: has a name twice"),
            ("['age', '']", "input[0].features: names have 1 to 128 bytes"),
        ] {
            assert_eq!(read(names).unwrap_err(), text);
        }
        let text = "[[input]]\nname = 'x'\ndtype = 'FP32'\nshape = [-1]\nfeatures = ['a']\n\
                    [[output]]\nname = 'y'\ndtype = 'FP32'\nshape = []\nfeatures = ['b']";
        let found = Manifest::parse(text).unwrap_err();
        assert_eq!(
            found[0].to_string(),
            "input[0].features: names need a shape without variable dimensions"
        );
        assert_eq!(found.len(), 1);
    }
}
