//! Writes the seeds of all targets as files: `seeds FOLDER` makes `FOLDER/TARGET/NUMBER`.

use std::path::PathBuf;
use std::{env, fs};

fn main() -> std::io::Result<()> {
    let folder = env::args_os().nth(1).map_or_else(|| PathBuf::from("seeds"), PathBuf::from);
    for (target, _) in tower_oauth2_fuzz::TARGETS {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        for (number, seed) in tower_oauth2_fuzz::seeds(target).iter().enumerate() {
            fs::write(folder.join(format!("{number:03}")), seed)?;
        }
    }
    Ok(())
}
