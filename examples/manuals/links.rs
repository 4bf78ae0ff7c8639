//! The pages of docs/ and the README as the package installs them: beside each other in one folder, with links that lead
//! somewhere there.

use std::path::{Component, Path, PathBuf};

use super::markdown::next_link;

/// Where a file of the repository is in /usr/share/doc/pve-span, if the package has it.
fn installed(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    match path {
        "README.md" => Some("README.md".into()),
        // dh_installchangelogs and dh_compress make that of it.
        "CHANGELOG.md" => Some("changelog.gz".into()),
        "LICENSE-MIT" | "LICENSE-APACHE" => Some("copyright".into()),
        "pve-config/span.cfg"
        | "pve-config/grafana-dashboard.json"
        | "pve-config/prometheus-alerts.yml" => Some(format!("examples/{name}")),
        "hookscripts/pve-span" => Some("../../pve-span/hookscript".into()),
        "docs/picture.svg" => Some("picture.svg".into()),
        _ if path.starts_with("docs/") && path.ends_with(".md") => Some(name.into()),
        _ => None,
    }
}

/// A page with its links made fit: `page` is its path in the repository. A link to what the package does not have
/// becomes its words.
pub fn fit(page: &str, text: &str) -> String {
    let mut out = String::new();
    for (place, block) in text.split("```").enumerate() {
        if place % 2 == 1 {
            out.push_str(&format!("```{block}```"));
        } else {
            fit_prose(page, block, &mut out);
        }
    }
    out
}

fn fit_prose(page: &str, text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(link) = next_link(rest) {
        out.push_str(&rest[..link.start]);
        let is_elsewhere = link.target.contains("://") || link.target.starts_with('#');
        let (file, anchor) = match link.target.split_once('#') {
            Some((file, anchor)) => (file, format!("#{anchor}")),
            None => (link.target, String::new()),
        };
        if is_elsewhere {
            out.push_str(&rest[link.start..link.end]);
        } else if let Some(name) = installed(&in_repository(page, file)) {
            out.push_str(&format!("[{}]({name}{anchor})", link.words));
        } else {
            out.push_str(link.words);
        }
        rest = &rest[link.end..];
    }
    out.push_str(rest);
}

/// A link's file as a path from the top of the repository.
fn in_repository(page: &str, file: &str) -> String {
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let mut path = PathBuf::new();
    for part in folder.join(file).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            other => path.push(other),
        }
    }
    path.display().to_string()
}
