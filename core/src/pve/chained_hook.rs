//! The record of a chained hookscript, `/etc/pve/span-hooks/<vmid>`: text ↔ which script a guest had before ours.
//!
//! Two readers go by it: pve-span, and the hookscript itself where pve-span is gone (hookscripts/pve-span, with the shell's
//! own means). So its form is plain and strict.

use super::storage::{SNIPPET, Volume};
use crate::model::{Invalid, Vmid, excerpt, is_control};

/// The folder of the records, below /etc/pve.
pub const FOLDER: &str = "span-hooks";

/// The hookscript that a guest had, and that is called after ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chained {
    /// As the guest's config had it.
    volume: Volume,
    /// The file.
    path: String,
}

impl Chained {
    /// A script to be called after ours.
    ///
    /// # Errors
    /// It is ours itself, which would call itself for ever, or the path is not one.
    pub fn new(volume: Volume, path: String) -> Result<Self, Invalid> {
        let file = path.rsplit('/').next().unwrap_or_default();
        if volume.is_ours() || file == SNIPPET {
            return Err(Invalid(format!("{volume} is pve-span's own hookscript")));
        }
        let fits = path.starts_with('/') && path.len() <= 4095 && !path.chars().any(is_control);
        if !fits || file.is_empty() || path.trim_end() != path {
            return Err(Invalid(format!(
                "`{}` is not an absolute path",
                excerpt(&path)
            )));
        }
        Ok(Self { volume, path })
    }

    /// As the guest's config had it.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The record's text.
    pub fn to_text(&self, vmid: Vmid) -> String {
        format!(
            "# Written by `pve-span attach {vmid} --chain`: the hookscript that guest {vmid} had before, called after pve-span.\n\
             # `pve-span detach {vmid}` sets it back and removes this file.\n\
             volume = {}\npath = {}\n",
            self.volume.to_id(),
            self.path
        )
    }
}

/// Reads a record.
///
/// # Errors
/// It is not what [`Chained::to_text`] writes, comments aside.
pub fn parse(text: &str) -> Result<Chained, Invalid> {
    let (mut volume, mut path) = (None, None);
    let lines = text.lines().map(str::trim_end);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (place, value) = match line.split_once(" = ") {
            Some(("volume", value)) => (&mut volume, value),
            Some(("path", value)) => (&mut path, value),
            _ => {
                return Err(Invalid(format!(
                    "`{}` is neither `volume = …` nor `path = …`",
                    excerpt(line)
                )));
            }
        };
        if place.replace(value).is_some() {
            return Err(Invalid(format!("`{}` stands twice", excerpt(line))));
        }
    }
    let lacks = |key: &str| Invalid(format!("it lacks the line `{key} = …`"));
    let volume = volume.ok_or_else(|| lacks("volume"))?.parse()?;
    Chained::new(volume, path.ok_or_else(|| lacks("path"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let volume: Volume = "local:snippets/old one.pl".parse().unwrap();
        let chained = Chained::new(volume, "/var/lib/vz/snippets/old one.pl".into()).unwrap();
        let text = chained.to_text(Vmid::new(101).unwrap());
        assert_eq!(
            text,
            "# Written by `pve-span attach 101 --chain`: the hookscript that guest 101 had before, called after pve-span.\n\
             # `pve-span detach 101` sets it back and removes this file.\n\
             volume = local:snippets/old one.pl\npath = /var/lib/vz/snippets/old one.pl\n"
        );
        assert_eq!(parse(&text), Ok(chained));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let fault = |text: &str| parse(text).unwrap_err().0;
        assert_eq!(fault(""), "it lacks the line `volume = …`");
        assert_eq!(
            fault("volume = local:snippets/a\n"),
            "it lacks the line `path = …`"
        );
        assert_eq!(
            fault("volume = local:snippets/a\npath = a\n"),
            "`a` is not an absolute path"
        );
        assert_eq!(
            fault("volume = local:snippets/a\npath = /a\npath = /b\n"),
            "`path = /b` stands twice"
        );
        assert_eq!(
            fault("volume = local:snippets/pve-span\npath = /x/a\n"),
            "local:snippets/pve-span is pve-span's own hookscript"
        );
        assert_eq!(
            fault("volume = local:snippets/a\npath = /x/pve-span\n"),
            "local:snippets/a is pve-span's own hookscript"
        );
        assert_eq!(
            fault("rm\u{1b} -rf\n"),
            "`rm\\u{1b} -rf` is neither `volume = …` nor `path = …`"
        );
    }
}
