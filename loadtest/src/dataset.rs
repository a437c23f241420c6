//! The rows that requests are made of: from a CSV file of labelled pixels, from a file of requests
//! of the protocol, or random by what the model's metadata says.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;

use crate::random::Random;
use crate::target::{Metadata, TensorInfo};

mod requests;

/// The largest value of a raw pixel; models take pixels from 0 to 1.
const LARGEST_PIXEL: f32 = 16.0;
/// How many random rows there are.
const RANDOM_ROWS: usize = 32;
/// How many random requests there are where their lengths differ.
const RANDOM_REQUESTS: usize = 256;
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
    /// The shape of each row, without the batch dimension; only one where all are the same.
    pub shapes: Vec<Vec<i64>>,
    /// Little-endian elements of each row.
    pub rows: Vec<Bytes>,
}

/// How random rows are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// The shape of a row of some inputs, by name.
    pub shapes: BTreeMap<String, Vec<i64>>,
    /// From and to which size dimensions of any size are drawn, one size for all inputs of a
    /// request.
    pub lengths: Option<(u64, u64)>,
    /// Rows of a request: they have one size.
    pub rows: usize,
}

// === impl Column ===

impl Column {
    /// The shape of one row.
    #[must_use]
    pub fn shape(&self, row: usize) -> &[i64] {
        &self.shapes[row % self.shapes.len()]
    }
}

// === impl Dataset ===

impl Dataset {
    #[must_use]
    pub fn len(&self) -> usize {
        self.inputs.first().map_or(0, |column| column.rows.len())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows from a file where there is one, else random rows. A file of requests ends in `.json`
    /// or `.jsonl`, any other is CSV.
    ///
    /// # Errors
    /// When the file cannot be read or does not fit the model, or when the model takes data that
    /// cannot be made up.
    pub fn for_model(
        metadata: &Metadata,
        file: Option<&Path>,
        recipe: &Recipe,
    ) -> anyhow::Result<Self> {
        match file {
            None => Self::random(metadata, recipe),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let json = path.extension().is_some_and(|end| end == "json" || end == "jsonl");
                let rows =
                    if json { Self::from_requests(&text) } else { Self::from_csv(metadata, &text) };
                rows.with_context(|| path.display().to_string())
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
        let (name, datatype) = (input.name.clone(), input.datatype.clone());
        let column = Column { name, datatype, shapes: vec![shape], rows };
        Ok(Self { inputs: vec![column], labels: Some(labels), batched })
    }

    /// Random rows, the same in every run: numbers from 0 to 1, whole numbers 0 and 1 with a 1
    /// in front, which token ids and masks both survive.
    ///
    /// # Errors
    /// When an input is of a type that no random data is made for.
    pub fn random(metadata: &Metadata, recipe: &Recipe) -> anyhow::Result<Self> {
        let known = |name: &String| metadata.inputs.iter().any(|input| input.name == *name);
        if let Some(name) = recipe.shapes.keys().find(|name| !known(name)) {
            bail!("model '{}' has no input '{name}'", metadata.name);
        }
        let mut random = Random::new(1);
        let rows = recipe.rows.max(1);
        let requests = if recipe.lengths.is_some() { RANDOM_REQUESTS } else { RANDOM_ROWS };
        let count = if recipe.lengths.is_some() { requests * rows } else { requests };
        let lengths = (0..requests).map(|_| match recipe.lengths {
            None => Ok(ANY_DIMENSION),
            Some((from, to)) => Ok(i64::try_from(from + random.below(to - from + 1))?),
        });
        let lengths: Vec<i64> = lengths.collect::<anyhow::Result<_>>()?;
        let mut inputs = Vec::with_capacity(metadata.inputs.len());
        let mut all_batched = true;
        for input in &metadata.inputs {
            let (shape, batched) = row_shape(input);
            all_batched &= batched;
            let shape = recipe.shapes.get(&input.name).unwrap_or(&shape);
            let varies = recipe.lengths.is_some() && shape.iter().any(|size| *size < 0);
            let sized = |request: usize| -> Vec<i64> {
                let length = lengths[request % lengths.len()];
                shape.iter().map(|size| if *size < 0 { length } else { *size }).collect()
            };
            let shapes: Vec<Vec<i64>> =
                (0..if varies { count } else { 1 }).map(|row| sized(row / rows)).collect();
            let row = |row: usize| {
                let elements = shapes[row % shapes.len()].iter().product::<i64>();
                random_row(&input.datatype, usize::try_from(elements).ok()?, &mut random)
            };
            let rows = (0..count).map(row).collect::<Option<Vec<Bytes>>>();
            let rows = rows.with_context(|| format!("no random data for {}", input.datatype))?;
            let (name, datatype) = (input.name.clone(), input.datatype.clone());
            inputs.push(Column { name, datatype, shapes, rows });
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

fn random_row(datatype: &str, elements: usize, random: &mut Random) -> Option<Bytes> {
    let mut row = Vec::new();
    for index in 0..elements {
        let bits = random.bits();
        // 16 random bits, which every type below holds exactly.
        let fraction = f32::from((bits >> 48) as u16) / 65536.0;
        let whole = u8::from(index == 0 || bits >> 63 == 1);
        match datatype {
            "FP32" => row.extend(fraction.to_le_bytes()),
            "FP64" => row.extend(f64::from(fraction).to_le_bytes()),
            // From an eighth to one: the exponent varies little, the fraction freely.
            "FP16" => row.extend((0x3000 + u16::from(bits.to_le_bytes()[0]) * 12).to_le_bytes()),
            "BF16" => row.extend_from_slice(&fraction.to_le_bytes()[2..]),
            "BYTES" => {
                let text = format!("word{}", bits >> 54);
                row.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
                row.extend_from_slice(text.as_bytes());
            }
            "BOOL" | "INT8" | "UINT8" => row.push(whole),
            "INT16" | "UINT16" => row.extend(u16::from(whole).to_le_bytes()),
            "INT32" | "UINT32" => row.extend(u32::from(whole).to_le_bytes()),
            "INT64" | "UINT64" => row.extend(u64::from(whole).to_le_bytes()),
            _ => return None,
        }
    }
    Some(row.into())
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

    fn random(metadata: &Metadata) -> anyhow::Result<Dataset> {
        Dataset::random(metadata, &Recipe::default())
    }

    #[test]
    fn pixels_become_sixteenths_and_labels_stay() {
        let model = metadata(&[("pixels", "FP32", &[-1, 3])]);
        let data = Dataset::from_csv(&model, "label,p0,p1,p2\n7,0,8,16\n1,4,0,2\n").unwrap();
        assert_eq!(data.labels, Some(vec![7, 1]));
        assert_eq!(data.len(), 2);
        let expected: Vec<u8> = [0.0f32, 0.5, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(data.inputs[0].rows[0], expected);
        assert_eq!(data.inputs[0].shapes, [[3]]);
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
        let data = random(&model).unwrap();
        assert_eq!(data, random(&model).unwrap());
        assert_eq!((data.inputs[0].shape(5), data.inputs[0].rows[0].len()), (&[16][..], 128));
        assert_eq!((data.inputs[1].shape(5), data.inputs[1].rows[0].len()), (&[2, 3][..], 24));
        assert_ne!(data.inputs[1].rows[0], data.inputs[1].rows[1]);
        assert!(random(&metadata(&[("t", "COMPLEX", &[-1])])).is_err());
        let text = &random(&metadata(&[("t", "BYTES", &[-1, 1])])).unwrap().inputs[0].rows[0];
        assert_eq!(usize::from(text[0]), text.len() - 4);
    }

    #[test]
    fn lengths_are_drawn_for_whole_requests_and_shapes_can_be_given() {
        let model = metadata(&[("ids", "INT64", &[-1, -1]), ("mask", "INT64", &[-1, -1])]);
        let recipe = Recipe { lengths: Some((8, 12)), rows: 2, ..Recipe::default() };
        let data = Dataset::random(&model, &recipe).unwrap();
        let (ids, mask) = (&data.inputs[0], &data.inputs[1]);
        let mut seen: Vec<i64> = (0..data.len()).map(|row| ids.shape(row)[0]).collect();
        for row in 0..data.len() {
            assert_eq!(ids.shape(row), mask.shape(row));
            assert_eq!(ids.shape(row), ids.shape(row & !1));
            assert_eq!(i64::try_from(ids.rows[row].len()).unwrap(), 8 * ids.shape(row)[0]);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [8, 9, 10, 11, 12]);
        let shapes = BTreeMap::from([("ids".to_owned(), vec![5])]);
        let recipe = Recipe { shapes: shapes.clone(), ..Recipe::default() };
        assert_eq!(Dataset::random(&model, &recipe).unwrap().inputs[0].shape(0), [5]);
        let other = metadata(&[("x", "INT64", &[-1, -1])]);
        let error = Dataset::random(&other, &recipe).unwrap_err();
        assert_eq!(error.to_string(), "model 'm' has no input 'ids'");
    }

    #[test]
    fn a_model_without_a_batch_dimension_takes_rows_whole() {
        let data = random(&metadata(&[("x", "FP32", &[4])])).unwrap();
        assert!(!data.batched);
        assert_eq!(data.inputs[0].shapes, [[4]]);
    }
}
