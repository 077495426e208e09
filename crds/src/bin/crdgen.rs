//! Writes the CRDs as YAML, or checks that what is committed is what the types give.
//!
//! Owns the two places, below the root of a clone in which it is run: `crds/generated`, and `charts/pharos/files/crds`,
//! since Helm reads nothing outside a chart. Must not know what is in them.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let check = std::env::args().skip(1).any(|argument| argument == "--check");
    // Of the clone it is run in: a binary in a shared target directory may be of another.
    let here = Path::new("");
    let mut status = ExitCode::SUCCESS;
    for (name, text) in pharos_crds::schema::files() {
        for directory in ["crds/generated", "charts/pharos/files/crds"] {
            let path = here.join(directory).join(name);
            if std::fs::read_to_string(&path).is_ok_and(|committed| committed == text) {
                continue;
            }
            let outcome =
                if check { Err("is stale: run ./x codegen".to_owned()) } else { write(&path, &text) };
            if let Err(message) = outcome {
                eprintln!("{}: {message}", path.display());
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let parent = path.parent().ok_or("has no directory")?;
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|error| error.to_string())
}
