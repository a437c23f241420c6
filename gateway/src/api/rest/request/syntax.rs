//! The JSON of an infer request, read in one pass: numbers go straight into tensors where type
//! and shape stand before them, as every client writes them.

use std::borrow::Cow;

use engine::{DataType, Tensor};

use crate::codec::json;
use crate::codec::json::reader::{Fault, Reader, Scalar};
use crate::error::Rejection;

/// Most `inputs` and `outputs` each, and most dimensions of an input, as over gRPC: what an entry
/// takes in memory is many times its text.
const ENTRIES: usize = 1024;
const DIMENSIONS: usize = 64;

/// Most parameters without a meaning that are kept.
const OTHERS: usize = 64;

/// An infer request as it stands in JSON.
#[derive(Debug, Default)]
pub(super) struct Body<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) parameters: Parameters,
    pub(super) inputs: Vec<Input<'a>>,
    pub(super) outputs: Option<Vec<Output<'a>>>,
}

#[derive(Debug, Default)]
pub(super) struct Input<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) shape: Shape,
    pub(super) datatype: Cow<'a, str>,
    pub(super) parameters: Parameters,
    pub(super) data: Data<'a>,
}

#[derive(Debug, Default)]
pub(super) struct Output<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) parameters: Parameters,
}

/// The `data` of an input.
#[derive(Debug, Default)]
pub(super) enum Data<'a> {
    #[default]
    Absent,
    Decoded(Tensor),
    /// Valid JSON that stands before the type or the shape, or that does not fit them.
    Text(&'a str),
}

/// The parameters that mean something here; others may say what they like.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    pub(super) binary_data: Option<Scalar>,
    pub(super) binary_data_output: Option<Scalar>,
    pub(super) binary_data_size: Option<Scalar>,
    pub(super) classification: Option<Scalar>,
    pub(super) priority: Option<Scalar>,
    pub(super) timeout: Option<Scalar>,
    pub(super) has_shared_memory: bool,
    /// The first name, in alphabetical order, that only servers may use.
    pub(super) reserved: Option<String>,
    /// Texts, numbers and flags without a meaning here, which routes may read.
    pub(super) others: Vec<(String, String)>,
}

/// Dimensions, or the first one that does not fit this machine.
#[derive(Debug)]
pub(super) struct Shape(Result<Vec<usize>, u64>);

impl Default for Shape {
    fn default() -> Self {
        Self(Ok(Vec::new()))
    }
}

impl Shape {
    pub(super) fn dimensions(self) -> Result<Vec<usize>, String> {
        self.0.map_err(|dimension| format!("dimension {dimension} is too large"))
    }

    fn push(&mut self, dimension: u64) {
        if let Ok(dimensions) = &mut self.0 {
            match usize::try_from(dimension) {
                Ok(dimension) => dimensions.push(dimension),
                Err(_) => self.0 = Err(dimension),
            }
        }
    }
}

/// Reads the JSON part of a request.
pub(super) fn parse(json: &[u8]) -> Result<Body<'_>, Rejection> {
    let mut reader = Reader::new(json);
    let parsed = body(&mut reader).and_then(|body| reader.end().map(|()| body));
    parsed.map_err(|fault| Rejection::invalid(explain(&fault, json)))
}

fn explain(fault: &Fault, json: &[u8]) -> String {
    let path = fault.path();
    let place = if path.is_empty() { String::new() } else { format!(" at {path}") };
    let rest = fault.rest(json);
    let rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let hint = if rest.starts_with(b"NaN") || rest.starts_with(b"Infinity") {
        ": NaN and Infinity are not JSON, send them as binary data"
    } else {
        ""
    };
    let (line, column) = fault.position(json);
    let message = fault.message();
    format!("the request is not valid{place}: {message} at line {line} column {column}{hint}")
}

fn body<'a>(reader: &mut Reader<'a>) -> Result<Body<'a>, Fault> {
    let mut body = Body::default();
    let seen = reader.object(&["inputs", "id", "parameters", "outputs"], |reader, field| {
        match field {
            0 => {
                reader.list(|reader| {
                    reader.bound(body.inputs.len(), ENTRIES)?;
                    body.inputs.push(input(reader)?);
                    Ok(())
                })?;
            }
            1 if !reader.null()? => body.id = reader.string()?,
            2 => body.parameters = parameters(reader)?,
            3 if !reader.null()? => {
                let mut outputs = Vec::new();
                reader.list(|reader| {
                    reader.bound(outputs.len(), ENTRIES)?;
                    outputs.push(output(reader)?);
                    Ok(())
                })?;
                body.outputs = Some(outputs);
            }
            _ => {}
        }
        Ok(())
    })?;
    if seen & 1 == 0 {
        return Err(reader.missing("inputs"));
    }
    Ok(body)
}

fn input<'a>(reader: &mut Reader<'a>) -> Result<Input<'a>, Fault> {
    const FIELDS: [&str; 5] = ["name", "shape", "datatype", "parameters", "data"];
    let mut input = Input::default();
    // Data can be decoded on the way once type and shape are known.
    let (mut has_shape, mut datatype) = (false, None);
    let seen = reader.object(&FIELDS, |reader, field| {
        match field {
            0 => input.name = reader.string()?,
            1 => {
                reader.list(|reader| {
                    reader.bound(input.shape.0.as_ref().map_or(0, Vec::len), DIMENSIONS)?;
                    input.shape.push(reader.unsigned()?);
                    Ok(())
                })?;
                has_shape = true;
            }
            2 => {
                input.datatype = reader.string()?;
                datatype = input.datatype.parse::<DataType>().ok();
            }
            3 => input.parameters = parameters(reader)?,
            4 if !reader.null()? => {
                let known = datatype.filter(|_| has_shape);
                input.data = data(reader, known, &input.shape)?;
            }
            _ => {}
        }
        Ok(())
    })?;
    missing(reader, seen, &FIELDS[..3])?;
    Ok(input)
}

/// Reads data into a tensor, or keeps its text: whoever decodes that says what is wrong with it,
/// after all that is wrong with the JSON around it.
fn data<'a>(
    reader: &mut Reader<'a>,
    datatype: Option<DataType>,
    shape: &Shape,
) -> Result<Data<'a>, Fault> {
    let mark = reader.mark();
    if let (Some(datatype), Ok(dimensions)) = (datatype, &shape.0)
        && let Ok(tensor) = json::read_data(reader, datatype, dimensions.clone())
    {
        return Ok(Data::Decoded(tensor));
    }
    reader.rewind(mark);
    reader.raw().map(Data::Text)
}

fn output<'a>(reader: &mut Reader<'a>) -> Result<Output<'a>, Fault> {
    const FIELDS: [&str; 2] = ["name", "parameters"];
    let mut output = Output::default();
    let seen = reader.object(&FIELDS, |reader, field| {
        match field {
            0 => output.name = reader.string()?,
            _ => output.parameters = parameters(reader)?,
        }
        Ok(())
    })?;
    missing(reader, seen, &FIELDS[..1])?;
    Ok(output)
}

fn missing(reader: &Reader<'_>, seen: u32, required: &[&str]) -> Result<(), Fault> {
    match required.iter().enumerate().find(|(index, _)| seen & (1 << index) == 0) {
        Some((_, name)) => Err(reader.missing(name)),
        None => Ok(()),
    }
}

fn parameters(reader: &mut Reader<'_>) -> Result<Parameters, Fault> {
    let mut parameters = Parameters::default();
    if reader.null()? {
        return Ok(parameters);
    }
    reader.map(|reader, name| {
        let mark = reader.mark();
        let value = reader.scalar()?;
        match name {
            "binary_data" => parameters.binary_data = Some(value),
            "binary_data_output" => parameters.binary_data_output = Some(value),
            "binary_data_size" => parameters.binary_data_size = Some(value),
            "classification" => parameters.classification = Some(value),
            "priority" => parameters.priority = Some(value),
            "timeout" => parameters.timeout = Some(value),
            "shared_memory_region" => parameters.has_shared_memory = true,
            _ if name.starts_with("triton_")
                && parameters.reserved.as_deref().is_none_or(|first| name < first) =>
            {
                parameters.reserved = Some(name.to_owned());
            }
            _ if parameters.others.len() < OTHERS => {
                reader.rewind(mark);
                let value = plain(reader.raw()?);
                parameters.others.extend(value.map(|value| (name.to_owned(), value)));
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(parameters)
}

/// A text without its quotes, a number or a flag as it stands.
fn plain(json: &str) -> Option<String> {
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).ok(),
        Some(b'[' | b'{' | b'n') | None => None,
        Some(_) => Some(json.to_owned()),
    }
}
