//! Writes every ready fixture as a model repository: `fixtures FOLDER`.

use std::io::{self, Write};
use std::path::Path;

use engine_torch::fixtures;

fn main() -> io::Result<()> {
    engine_torch::prepare_process();
    let Some(folder) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("usage: fixtures FOLDER"));
    };
    let folder = Path::new(&folder);
    for fixture in fixtures::all() {
        fixture.write(folder, 1)?;
        writeln!(io::stdout(), "{}", folder.join(&fixture.name).display())?;
    }
    // A second version, for swaps and splits.
    fixtures::times(2).write(folder, 2)
}
