//! Writes every ready fixture as a model repository: `fixtures FOLDER`; `fixtures --bad-digits
//! FOLDER` the bad shadows for the example model `digits` instead.

use std::io::{self, Write};
use std::path::Path;

use engine_torch::fixtures;

fn main() -> io::Result<()> {
    engine_torch::prepare_process();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let (fixtures, folder) = match &arguments[..] {
        [folder] => (fixtures::all(), folder),
        [option, folder] if option == "--bad-digits" => (fixtures::bad_digits().into(), folder),
        _ => return Err(io::Error::other("usage: fixtures [--bad-digits] FOLDER")),
    };
    let folder = Path::new(folder);
    for fixture in &fixtures {
        fixture.write(folder, 1)?;
        writeln!(io::stdout(), "{}", folder.join(&fixture.name).display())?;
    }
    // A second version, for swaps and splits.
    if fixtures.iter().any(|fixture| fixture.name == "times") {
        fixtures::times(2).write(folder, 2)?;
    }
    Ok(())
}
