//! Header blocks: the examples of RFC 7541, and ours against the decoder.

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Broken> {
    let mut headers = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    decoder.decode(block, |name, value| headers.push((text(name), text(value))))?;
    Ok(headers)
}

fn pairs(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn coded_answers_of_the_specification_read_in_sequence_with_eviction() {
    // RFC 7541 C.6: a table of 256 bytes.
    let mut decoder = Decoder { limit: 256, ..Decoder::default() };
    let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    let expected = [
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    assert_eq!(decode(&mut decoder, &bytes(first)).unwrap(), pairs(&expected));
    let expected = [(":status", "307"), expected[1], expected[2], expected[3]];
    assert_eq!(decode(&mut decoder, &bytes("4883 640e ffc1 c0bf")).unwrap(), pairs(&expected));
    let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
         9587 3160 65c0 03ed 4ee5 b106 3d50 07";
    let headers = decode(&mut decoder, &bytes(third)).unwrap();
    assert_eq!(headers[0], (":status".to_owned(), "200".to_owned()));
    assert_eq!(headers[5].1, "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
    assert_eq!(decoder.table.len(), 3);
    assert_eq!(decoder.size, 215);
}

#[test]
fn what_is_written_is_what_is_read() {
    let headers = [
        (":method", "POST"),
        (":path", "/inference.GRPCInferenceService/ModelInfer"),
        (":authority", "localhost:8001"),
        ("te", "trailers"),
    ];
    let encoded = Encoded::new(&headers);
    let mut decoder = Decoder::default();
    assert_eq!(decode(&mut decoder, &encoded.first).unwrap(), pairs(&headers));
    assert_eq!(decoder.size, encoded.table_size);
    for _ in 0..2 {
        assert_eq!(decode(&mut decoder, &encoded.again).unwrap(), pairs(&headers));
    }
    assert_eq!(encoded.again.len(), headers.len());
    let mut block = Vec::new();
    write_no_table(&mut block);
    block.extend(&encoded.plain);
    write_plain(&mut block, "a-key", &"x".repeat(300));
    let mut decoder = Decoder::default();
    let read = decode(&mut decoder, &block).unwrap();
    assert_eq!(read[..4], pairs(&headers)[..]);
    assert_eq!(read[4].1.len(), 300);
    assert_eq!((decoder.size, decoder.limit), (0, 0));
}

#[test]
fn blocks_that_break_the_rules_are_refused() {
    for (block, reason) in [
        ("80", "a header of index 0"),
        ("be", "a header that is not in the table"),
        ("40 85 61", "a header block that ends early"),
        ("3f e2 1f", "a table larger than we allow"),
        ("ff ff ff ff ff 7f", "a number that is too large"),
        ("00 01 61 81 00", "a string that is no Huffman code"),
    ] {
        let error = decode(&mut Decoder::default(), &bytes(block)).unwrap_err();
        assert_eq!(error, Broken(reason), "{block}");
    }
}
