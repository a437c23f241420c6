//! Writes certificates for tests: `certificates FOLDER`. Two authorities, servers and callers.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("usage: certificates FOLDER"));
    };
    let folder = Path::new(&folder);
    fs::create_dir_all(folder)?;
    write(folder).map_err(io::Error::other)?;
    writeln!(io::stdout(), "{}", folder.display())
}

fn write(folder: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (ours, strange) = (authority("Penstock tests")?, authority("Somebody else")?);
    fs::write(folder.join("ca.pem"), ours.pem())?;
    fs::write(folder.join("strange-ca.pem"), strange.pem())?;
    for number in [1_u8, 2, 3] {
        let names = ["localhost", "127.0.0.1"];
        issue(folder, &format!("server-{number}"), &ours, server(number, &names)?)?;
    }
    issue(folder, "named", &ours, server(4, &["gateway.example"])?)?;
    issue(folder, "caller", &ours, caller("batch, nightly")?)?;
    issue(folder, "stranger", &strange, caller("stranger")?)
}

fn authority(name: &str) -> Result<Authority, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn server(number: u8, names: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "gateway");
    params.serial_number = Some(SerialNumber::from_slice(&[number]));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn caller(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI("spiffe://example.org/batch".try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Writes `NAME.pem` and `NAME.key`.
fn issue(
    folder: &Path,
    name: &str,
    authority: &Authority,
    params: CertificateParams,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}
