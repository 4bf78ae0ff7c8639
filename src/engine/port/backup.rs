//! What outputs' and sources' ports were like before they were changed, so that they can be put back.
//!
//! Kept under `/run`: what a reboot undoes needs no undoing.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::files;
use pve_span_core::engine::port::PortSettings;
use pve_span_core::model::IfName;

/// The file, below the root directory.
const OUTPUTS: &str = "run/pve-span/outputs.json";

/// What changed ports were like, by name.
pub type PortBackups = BTreeMap<IfName, PortSettings>;

/// Why what was saved is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The file cannot be removed.
    #[error("cannot remove {path}")]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is none of ours any more.
    #[error(
        "{path} is damaged; remove it (ports that were changed for a sensor then stay so until their guest is stopped \
         or their device is plugged anew)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
    },
}

/// Reads what was saved; nothing, if there is no file.
///
/// # Errors
/// There is a file, and it cannot be read or understood.
pub fn load(root: &Path) -> Result<PortBackups, Error> {
    let path = root.join(OUTPUTS);
    match files::read_text(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|source| Error::Damaged { path, source }),
        Err(error) if error.is_missing() => Ok(PortBackups::new()),
        Err(error) => Err(error.into()),
    }
}

/// Saves as a whole; when there is nothing to put back, there is no file.
///
/// # Errors
/// The file cannot be written or removed; what it said before still stands.
pub fn store(root: &Path, saved: &PortBackups) -> Result<(), Error> {
    let path = root.join(OUTPUTS);
    if !saved.is_empty() {
        let text = serde_json::to_string_pretty(saved).map_err(|error| files::Error::Write {
            path: path.clone(),
            source: error.into(),
        })?;
        return Ok(files::replace_private(&path, &(text + "\n"))?);
    }
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Remove { path, source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::error::with_causes;
    use pve_span_core::engine::port::{BridgeFlags, Switch};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn saved() -> PortBackups {
        let tap = PortSettings {
            index: 12,
            flags: Some(BridgeFlags {
                flood: Switch::Off,
                ..BridgeFlags::default()
            }),
            offloads: ["tx-tcp-segmentation".to_owned()].into(),
            ..PortSettings::default()
        };
        let bare = PortSettings {
            index: 13,
            promiscuous: Some(Switch::Off),
            up: Some(Switch::Off),
            ..PortSettings::default()
        };
        [
            ("tap200i1".parse().unwrap(), tap),
            ("eno2".parse().unwrap(), bare),
        ]
        .into()
    }

    #[test]
    fn what_is_stored_is_loaded_and_nobody_else_can_read_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(load(root.path()).unwrap(), PortBackups::new());
        store(root.path(), &saved()).unwrap();
        assert_eq!(load(root.path()).unwrap(), saved());
        let mode = |path: &str| {
            let file = fs::metadata(root.path().join(path)).unwrap();
            file.permissions().mode() & 0o777
        };
        assert_eq!((mode("run/pve-span"), mode(OUTPUTS)), (0o700, 0o600));
    }

    #[test]
    fn with_nothing_to_put_back_there_is_no_file() {
        let root = tempfile::tempdir().unwrap();
        store(root.path(), &PortBackups::new()).unwrap();
        assert!(!root.path().join("run").exists());
        store(root.path(), &saved()).unwrap();
        store(root.path(), &PortBackups::new()).unwrap();
        assert_eq!(
            fs::read_dir(root.path().join("run/pve-span"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn the_file_is_as_it_was_promised() {
        let root = tempfile::tempdir().unwrap();
        store(root.path(), &saved()).unwrap();
        assert_eq!(
            fs::read_to_string(root.path().join(OUTPUTS)).unwrap(),
            r#"{
  "eno2": {
    "index": 13,
    "flags": null,
    "offloads": [],
    "promiscuous": "off",
    "up": "off"
  },
  "tap200i1": {
    "index": 12,
    "flags": {
      "flood": "off",
      "mcast_flood": "on",
      "bcast_flood": "on",
      "state": "forwarding"
    },
    "offloads": [
      "tx-tcp-segmentation"
    ]
  }
}
"#
        );
    }

    #[test]
    fn a_file_of_an_older_version_is_understood() {
        let root = tempfile::tempdir().unwrap();
        store(root.path(), &saved()).unwrap();
        let file = root.path().join(OUTPUTS);
        let text = fs::read_to_string(&file).unwrap();
        let older = text.replace("\"state\": \"forwarding\"", "\"forwarding\": \"on\"");
        let older = older.replace(",\n    \"promiscuous\": \"off\",\n    \"up\": \"off\"", "");
        assert!(older.len() < text.len());
        fs::write(&file, older).unwrap();
        let mut expected = saved();
        let bare = expected
            .get_mut(&"eno2".parse::<IfName>().unwrap())
            .unwrap();
        (bare.promiscuous, bare.up) = (None, None);
        assert_eq!(load(root.path()).unwrap(), expected);
    }

    #[test]
    fn what_is_damaged_is_named_with_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/pve-span")).unwrap();
        let said = |text: &str| {
            fs::write(root.path().join(OUTPUTS), text).unwrap();
            let error = load(root.path()).unwrap_err();
            with_causes(&error).replace(&root.path().display().to_string(), "")
        };
        assert_eq!(
            said("{\"tap"),
            "/run/pve-span/outputs.json is damaged; remove it (ports that were changed for a sensor then stay so until \
             their guest is stopped or their device is plugged anew): EOF while parsing a string at line 1 column 5"
        );
        assert!(said("{\"a b\": {\"index\": 1}}").contains("`a b` is not an interface name"));
        assert!(said("[]").contains("is damaged"));
    }
}
