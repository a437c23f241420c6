//! Handshakes and reloads, with certificates made for each test.
