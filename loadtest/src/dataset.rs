//! The rows that requests are made of: from a CSV file of labelled pixels, or random by what the
//! model's metadata says.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;

use crate::target::{Metadata, TensorInfo};

/// The largest value of a raw pixel; models take pixels from 0 to 1.
const LARGEST_PIXEL: f32 = 16.0;
/// How many random rows there are.
const RANDOM_ROWS: usize = 32;
/// The size of a dimension of any size, where random data has to choose one.
const ANY_DIMENSION: i64 = 16;

/// Rows for one model: for each input, the bytes of every row.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// One for each input of the model, in the order of its metadata.
    pub inputs: Vec<Column>,
    /// What each row shows, where that is known.
    pub labels: Option<Vec<usize>>,
    /// Rows can be put together in one request.
    pub batched: bool,
}

/// All rows of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    pub datatype: String,
    /// The shape of one row, without the batch dimension.
    pub shape: Vec<i64>,
    /// Little-endian elements of each row.
    pub rows: Vec<Bytes>,
}

impl Dataset {
    #[must_use]
    pub fn len(&self) -> usize {
        self.inputs.first().map_or(0, |column| column.rows.len())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows from a file where there is one, else random rows.
    ///
    /// # Errors
    /// When the file cannot be read or does not fit the model, or when the model takes data that
    /// cannot be made up.
    pub fn for_model(metadata: &Metadata, file: Option<&Path>) -> anyhow::Result<Self> {
        match file {
            None => Self::random(metadata),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                Self::from_csv(metadata, &text).with_context(|| path.display().to_string())
            }
        }
    }

    /// Rows of `label,p0,p1,…` after a heading; pixels count from 0 to 16.
    ///
    /// # Errors
    /// When a line is malformed, or the model is not one FP32 input of as many elements a row.
    pub fn from_csv(metadata: &Metadata, text: &str) -> anyhow::Result<Self> {
        let [input] = &metadata.inputs[..] else {
            bail!(
                "model '{}' has {} inputs, rows are for one",
                metadata.name,
                metadata.inputs.len()
            );
        };
        let (shape, batched) = row_shape(input);
        let width = shape.iter().product::<i64>();
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for (number, line) in text.lines().enumerate().skip(1) {
            let (label, pixels) = csv_row(line).with_context(|| format!("line {}", number + 1))?;
            ensure!(
                input.datatype == "FP32" && i64::try_from(pixels.len()) == Ok(width),
                "{} pixels a row do not fit input '{}' {}{:?}",
                pixels.len(),
                input.name,
                input.datatype,
                input.shape,
            );
            rows.push(pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect());
            labels.push(label);
        }
        ensure!(!rows.is_empty(), "there are no rows");
        let column =
            Column { name: input.name.clone(), datatype: input.datatype.clone(), shape, rows };
        Ok(Self { inputs: vec![column], labels: Some(labels), batched })
    }

    /// Random rows, the same in every run: numbers from 0 to 1, whole numbers 0 and 1 with a 1
    /// in front, which token ids and masks both survive.
    ///
    /// # Errors
    /// When an input is of a type that no random data is made for.
    pub fn random(metadata: &Metadata) -> anyhow::Result<Self> {
        let mut state = 1;
        let mut inputs = Vec::with_capacity(metadata.inputs.len());
        let mut all_batched = true;
        for input in &metadata.inputs {
            let (mut shape, batched) = row_shape(input);
            all_batched &= batched;
            for dimension in shape.iter_mut().filter(|dimension| **dimension < 0) {
                *dimension = ANY_DIMENSION;
            }
            let elements = usize::try_from(shape.iter().product::<i64>())?;
            let rows = (0..RANDOM_ROWS)
                .map(|_| random_row(&input.datatype, elements, &mut state))
                .collect::<Option<Vec<Bytes>>>()
                .with_context(|| format!("no random data for {}", input.datatype))?;
            let (name, datatype) = (input.name.clone(), input.datatype.clone());
            inputs.push(Column { name, datatype, shape, rows });
        }
        Ok(Self { inputs, labels: None, batched: all_batched })
    }
}

/// The shape without its batch dimension, and whether it has one.
fn row_shape(input: &TensorInfo) -> (Vec<i64>, bool) {
    match input.shape.split_first() {
        Some((-1, rest)) => (rest.to_vec(), true),
        _ => (input.shape.clone(), false),
    }
}

fn csv_row(line: &str) -> anyhow::Result<(usize, Vec<f32>)> {
    let mut cells = line.split(',');
    let label = cells.next().context("is empty")?.trim().parse().context("the label")?;
    let pixels = cells
        .map(|cell| Ok(cell.trim().parse::<f32>().context("a pixel")? / LARGEST_PIXEL))
        .collect::<anyhow::Result<_>>()?;
    Ok((label, pixels))
}

fn random_row(datatype: &str, elements: usize, state: &mut u64) -> Option<Bytes> {
    let mut row = Vec::new();
    for index in 0..elements {
        let bits = next(state);
        // 16 random bits, which every type below holds exactly.
        let fraction = f32::from((bits >> 48) as u16) / 65536.0;
        let whole = u8::from(index == 0 || bits >> 63 == 1);
        match datatype {
            "FP32" => row.extend(fraction.to_le_bytes()),
            "FP64" => row.extend(f64::from(fraction).to_le_bytes()),
            "BOOL" | "INT8" | "UINT8" => row.push(whole),
            "INT16" | "UINT16" => row.extend(u16::from(whole).to_le_bytes()),
            "INT32" | "UINT32" => row.extend(u32::from(whole).to_le_bytes()),
            "INT64" | "UINT64" => row.extend(u64::from(whole).to_le_bytes()),
            _ => return None,
        }
    }
    Some(row.into())
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough randomness for inputs, without a dependency.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(inputs: &[(&str, &str, &[i64])]) -> Metadata {
        let info = |&(name, datatype, shape): &(&str, &str, &[i64])| TensorInfo {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
        };
        Metadata {
            name: "m".to_owned(),
            versions: vec![],
            inputs: inputs.iter().map(info).collect(),
            outputs: vec![],
        }
    }

    #[test]
    fn pixels_become_sixteenths_and_labels_stay() {
        let model = metadata(&[("pixels", "FP32", &[-1, 3])]);
        let data = Dataset::from_csv(&model, "label,p0,p1,p2\n7,0,8,16\n1,4,0,2\n").unwrap();
        assert_eq!(data.labels, Some(vec![7, 1]));
        assert_eq!(data.len(), 2);
        let expected: Vec<u8> = [0.0f32, 0.5, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(data.inputs[0].rows[0], expected);
        assert_eq!(data.inputs[0].shape, [3]);
        assert!(data.batched);
    }

    #[test]
    fn rows_that_do_not_fit_the_model_are_refused() {
        let text = "label,p0,p1\n7,0,8\n";
        for inputs in [
            &[("x", "FP32", &[-1i64, 3][..])][..],
            &[("x", "INT64", &[-1, 2])],
            &[("x", "FP32", &[-1, 2]), ("y", "FP32", &[-1, 2])],
        ] {
            assert!(Dataset::from_csv(&metadata(inputs), text).is_err());
        }
        let model = metadata(&[("x", "FP32", &[-1, 2])]);
        let error = Dataset::from_csv(&model, "label,p0,p1\n7,0,x\n").unwrap_err();
        assert_eq!(format!("{error:#}"), "line 2: a pixel: invalid float literal");
    }

    #[test]
    fn random_rows_follow_the_metadata_and_repeat() {
        let model = metadata(&[("ids", "INT64", &[-1, -1]), ("x", "FP32", &[-1, 2, 3])]);
        let data = Dataset::random(&model).unwrap();
        assert_eq!(data, Dataset::random(&model).unwrap());
        assert_eq!((data.inputs[0].shape.clone(), data.inputs[0].rows[0].len()), (vec![16], 128));
        assert_eq!((data.inputs[1].shape.clone(), data.inputs[1].rows[0].len()), (vec![2, 3], 24));
        assert_ne!(data.inputs[1].rows[0], data.inputs[1].rows[1]);
        assert!(Dataset::random(&metadata(&[("t", "BYTES", &[-1])])).is_err());
    }

    #[test]
    fn a_model_without_a_batch_dimension_takes_rows_whole() {
        let data = Dataset::random(&metadata(&[("x", "FP32", &[4])])).unwrap();
        assert!(!data.batched);
        assert_eq!(data.inputs[0].shape, [4]);
    }
}
