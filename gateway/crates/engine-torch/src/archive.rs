//! Says in our own words why a file is no TorchScript module; looks at bytes, never trusts them.

/// The signature of zip's end record, its size without a comment, and the longest comment.
const END_RECORD: &[u8] = b"PK\x05\x06";
const END_RECORD_SIZE: usize = 22;
const LONGEST_COMMENT: usize = 0xFFFF;

/// Why libtorch may have refused `file`.
pub(crate) fn explain(file: &[u8]) -> &'static str {
    if file.is_empty() {
        return "the file is empty";
    }
    if file.starts_with(b"version https://git-lfs") {
        return "the file is a git-lfs pointer, not the module it stands for";
    }
    if file.starts_with(&[0x80, 0x02]) {
        return "the file is a pickle in the old format of torch.save, not a TorchScript module; \
                save it with torch.jit.save";
    }
    if !file.starts_with(b"PK\x03\x04") {
        return "the file is not a TorchScript module (those are zip archives)";
    }
    let Some(directory) = directory(file) else {
        return "the file is truncated: its zip directory is missing";
    };
    if holds(directory, b"/constants.pkl") && holds(directory, b"/code/") {
        return "libtorch cannot read this TorchScript module; it may be damaged, or made by an \
                incompatible version of PyTorch";
    }
    if holds(directory, b"/models/model.json") || holds(directory, b"serialized_exported_program") {
        return "the file is an exported program (torch.export), not a TorchScript module";
    }
    if holds(directory, b"/data.pkl") {
        return "the file holds weights or pickled objects (torch.save), not a TorchScript module; \
                save it with torch.jit.save";
    }
    "the file is a zip archive, but not a TorchScript module"
}

/// The list of names at the end of a zip archive.
fn directory(file: &[u8]) -> Option<&[u8]> {
    let tail = file.len().saturating_sub(END_RECORD_SIZE + LONGEST_COMMENT);
    let end = tail + find_last(&file[tail..], END_RECORD)?;
    let size = file.get(end + 12..end + 16)?;
    let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
    // Above 4 GiB the size stands elsewhere; then the last megabytes hold names enough.
    let size = if size == 0xFFFF_FFFF { 4 << 20 } else { size };
    Some(&file[end.saturating_sub(size)..end])
}

fn find_last(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).rposition(|window| window == part)
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zip's outline: a local header, names, an end record.
    fn zip(names: &[&str]) -> Vec<u8> {
        let mut file = b"PK\x03\x04".to_vec();
        let names: String = names.concat();
        file.extend_from_slice(names.as_bytes());
        file.extend_from_slice(END_RECORD);
        file.extend_from_slice(&[0; 8]);
        file.extend_from_slice(&u32::try_from(names.len()).unwrap().to_le_bytes());
        file.extend_from_slice(&[0; 6]);
        file
    }

    #[test]
    fn common_mistakes_are_named() {
        for (file, expected) in [
            (vec![], "empty"),
            (b"version https://git-lfs.github.com/spec/v1".to_vec(), "git-lfs"),
            (vec![0x80, 0x02, 0x8a], "old format of torch.save"),
            (b"ONNX".to_vec(), "zip archives"),
            (zip(&["m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"])[..9].to_vec(), "trunc"),
            (zip(&["m/data.pkl", "m/data/0"]), "torch.save"),
            (zip(&["m/models/model.json"]), "torch.export"),
            (zip(&["word/document.xml"]), "not a TorchScript module"),
            (zip(&["m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"]), "damaged"),
        ] {
            let text = explain(&file);
            assert!(text.contains(expected), "{text:?} says nothing of {expected:?}");
        }
    }

    #[test]
    fn lies_about_sizes_are_survived() {
        let mut file = zip(&["m/data.pkl"]);
        let at = file.len() - 10;
        file[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        explain(&file);
        file[at..at + 4].copy_from_slice(&0x7FFF_FFFF_u32.to_le_bytes());
        explain(&file);
        for end in 0..file.len() {
            explain(&file[..end]);
        }
    }
}
