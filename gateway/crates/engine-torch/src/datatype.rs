//! The protocol's element types as libtorch numbers them.

use engine::DataType;

/// libtorch's `ScalarType` of a protocol type; `None` for BYTES, which no tensor can hold.
/// The shim asserts these numbers when it is compiled.
pub(crate) fn scalar_type(datatype: DataType) -> Option<i8> {
    match datatype {
        DataType::Uint8 => Some(0),
        DataType::Int8 => Some(1),
        DataType::Int16 => Some(2),
        DataType::Int32 => Some(3),
        DataType::Int64 => Some(4),
        DataType::Fp16 => Some(5),
        DataType::Fp32 => Some(6),
        DataType::Fp64 => Some(7),
        DataType::Bool => Some(11),
        DataType::Bf16 => Some(15),
        DataType::Uint16 => Some(27),
        DataType::Uint32 => Some(28),
        DataType::Uint64 => Some(29),
        DataType::Bytes => None,
    }
}

/// The protocol's type for libtorch's number, where it has one.
pub(crate) fn datatype(scalar_type: i8) -> Option<DataType> {
    DataType::ALL.into_iter().find(|&datatype| self::scalar_type(datatype) == Some(scalar_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_but_bytes_survives_the_way_there_and_back() {
        for known in DataType::ALL {
            match scalar_type(known) {
                Some(number) => assert_eq!(datatype(number), Some(known)),
                None => assert_eq!(known, DataType::Bytes),
            }
        }
        assert_eq!(datatype(9), None, "complex numbers have no protocol type");
    }
}
