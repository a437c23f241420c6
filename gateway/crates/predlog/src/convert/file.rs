//! One Parquet file, from its first line to its name.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::{ConvertError, Options, Partition};
use crate::columns::is_unique;
use crate::{Schema, SchemaId};

/// Keys of the metadata. The checksum is CRC-32 of the bytes before the footer, of which there
/// are so many; Parquet's own checksums of pages are something that its writer here lacks.
pub(crate) const CRC: &str = "penstock.crc32";
pub(crate) const COVERED: &str = "penstock.crc32_bytes";
pub(crate) const SCHEMA: &str = "penstock.schema";
const SCHEMA_ID: &str = "penstock.schema_id";
const MODEL: &str = "penstock.model";
const VERSION: &str = "penstock.version";

/// Bytes of a dictionary after which a column goes on without.
const DICTIONARY: usize = 128 << 10;

/// What the metadata of a file of rows says.
pub(super) struct Facts {
    pub(super) partition: Partition,
    pub(super) schema_id: u64,
    pub(super) schema: Arc<Schema>,
}

impl Facts {
    pub(super) fn entries(&self) -> Vec<KeyValue> {
        let entry = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
        vec![
            entry(MODEL, self.partition.model.clone()),
            entry(VERSION, self.partition.version.clone()),
            entry(SCHEMA_ID, SchemaId(self.schema_id).to_string()),
            entry(SCHEMA, self.schema.to_json()),
        ]
    }
}

/// A file that has its name.
pub(super) struct Saved {
    pub(super) path: PathBuf,
    /// Lines.
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// A file that is being written, under a name that readers of folders skip.
pub(super) struct File {
    writer: ArrowWriter<Summed>,
    path: PathBuf,
    temporary: PathBuf,
    row_group_bytes: usize,
    rows: u64,
}

impl File {
    pub(super) fn create(
        path: &Path,
        schema: &SchemaRef,
        metadata: Vec<KeyValue>,
        options: &Options,
    ) -> Result<Self, ConvertError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.tmp"));
        let create = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut open = OpenOptions::new();
            open.write(true).create(true).truncate(true).mode(0o640).open(&temporary)
        };
        let sink = Summed {
            file: BufWriter::new(create().map_err(ConvertError::io(path))?),
            hasher: crc32fast::Hasher::new(),
            bytes: 0,
        };
        let writer = properties(schema, metadata, options)
            .map(|properties| {
                let own = ArrowWriterOptions::new().with_properties(properties);
                own.with_skip_arrow_metadata(true)
            })
            .and_then(|own| ArrowWriter::try_new_with_options(sink, Arc::clone(schema), own))
            .map_err(parquet(path))?;
        let path = path.to_owned();
        Ok(Self { writer, path, temporary, row_group_bytes: options.row_group_bytes, rows: 0 })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ConvertError> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(parquet(&self.path))?;
        if self.memory() >= self.row_group_bytes {
            self.end_row_group()?;
        }
        Ok(())
    }

    /// Bytes that the row group takes.
    pub(super) fn memory(&self) -> usize {
        self.writer.memory_size()
    }

    pub(super) fn end_row_group(&mut self) -> Result<(), ConvertError> {
        self.writer.flush().map_err(parquet(&self.path))
    }

    /// Gives the file its name once it is whole and on disk.
    pub(super) fn finish(mut self) -> Result<Saved, ConvertError> {
        self.end_row_group()?;
        self.writer.sync().map_err(ConvertError::io(&self.path))?;
        let sink = self.writer.inner();
        let (crc, covered) = (sink.hasher.clone().finalize(), sink.bytes);
        for (key, value) in [(CRC, format!("{crc:08x}")), (COVERED, covered.to_string())] {
            self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        self.writer.finish().map_err(parquet(&self.path))?;
        let sink = self.writer.inner_mut();
        let mut save = || {
            sink.file.flush()?;
            sink.file.get_ref().sync_all()?;
            fs::rename(&self.temporary, &self.path)
        };
        save().map_err(ConvertError::io(&self.path))?;
        Ok(Saved { path: self.path.clone(), rows: self.rows, bytes: sink.bytes })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Gone already if the file got its name.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Sums what goes to a file.
struct Summed {
    file: BufWriter<fs::File>,
    hasher: crc32fast::Hasher,
    bytes: u64,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn parquet(path: &Path) -> impl FnOnce(ParquetError) -> ConvertError {
    |source| ConvertError::Parquet { path: path.to_owned(), source }
}

fn properties(
    schema: &ArrowSchema,
    metadata: Vec<KeyValue>,
    options: &Options,
) -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(options.level)?))
        .set_dictionary_page_size_limit(DICTIONARY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_created_by(concat!("penstock ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(metadata));
    for field in schema.fields() {
        let (path, kind) = leaf(field);
        if let Some(encoding) = encoding(kind) {
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, encoding);
        } else if is_unique(field.name()) {
            properties = properties.set_column_dictionary_enabled(path, false);
        }
    }
    Ok(properties.build())
}

/// What stands in for a dictionary, which is slow to make and seldom smaller for numbers.
fn encoding(kind: &DataType) -> Option<Encoding> {
    match kind {
        kind if kind.is_integer() => Some(Encoding::DELTA_BINARY_PACKED),
        DataType::Timestamp(..) => Some(Encoding::DELTA_BINARY_PACKED),
        DataType::Float32 => Some(Encoding::BYTE_STREAM_SPLIT),
        _ => None,
    }
}

/// The leaf of a column: itself, or the elements of its lists.
fn leaf(field: &Field) -> (ColumnPath, &DataType) {
    match field.data_type() {
        DataType::List(element) => {
            let path = [field.name().as_str(), "list", element.name().as_str()];
            (ColumnPath::new(path.map(str::to_owned).to_vec()), element.data_type())
        }
        kind => (ColumnPath::new(vec![field.name().clone()]), kind),
    }
}
