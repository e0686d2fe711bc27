//! The city's key pair in the node's folder.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use federation::CityKey;

use crate::config::Flags;

/// The key file: PKCS#8 in PEM, readable by the owner only.
const FILE: &str = "city.key";

/// Reads the key pair in `dir`, making it at the first start.
pub(crate) fn load_or_make(dir: &Path) -> anyhow::Result<CityKey> {
    let path = dir.join(FILE);
    let context = || format!("city key `{}`", path.display());
    match std::fs::read(&path) {
        Ok(bytes) => CityKey::from_key_file(&bytes).with_context(context),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make folder `{}`", dir.display()))?;
            let (key, bytes) = CityKey::generate()?;
            let mut options = std::fs::OpenOptions::new();
            options.create_new(true).write(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&path).with_context(context)?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).with_context(context)?;
            Ok(key)
        }
        Err(e) => Err(e).with_context(context),
    }
}

/// `conurb key`.
pub(crate) fn print(flags: &Flags) -> anyhow::Result<()> {
    let config = flags.load()?;
    crate::say(&load_or_make(&config.data)?.public().to_string());
    Ok(())
}
