//! Pages of documentation, taken apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// A page.
pub struct Page {
    /// Its name from the top of the repository.
    pub name: String,
    pub text: String,
    pub blocks: Vec<Block>,
}

/// What stands between fences.
pub struct Block {
    /// What follows the opening fence.
    pub info: String,
    pub text: String,
    /// Of its first line, counted from 1.
    pub line: usize,
}

impl Block {
    /// Its command lines, without what they print and without comments.
    pub fn commands(&self) -> Vec<(usize, String)> {
        let lines = self
            .text
            .lines()
            .enumerate()
            .map(|(n, line)| (self.line + n, line));
        let is_shot = self.info == "console";
        let mut commands: Vec<(usize, String)> = Vec::new();
        let mut goes_on = false;
        for (n, line) in lines {
            let command = if goes_on {
                Some(line)
            } else if is_shot {
                line.strip_prefix("# ")
            } else {
                Some(line).filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            };
            let Some(command) = command else { continue };
            let (text, more) = match command.strip_suffix('\\') {
                Some(text) => (text, true),
                None => (command, false),
            };
            match commands.last_mut().filter(|_| goes_on) {
                Some((_, whole)) => whole.push_str(text),
                None => commands.push((n, text.to_owned())),
            }
            goes_on = more;
        }
        commands
    }
}

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All pages: the README, those beside it, and docs/.
pub fn pages() -> Vec<Page> {
    let mut names = vec![
        "README.md".to_owned(),
        "CONTRIBUTING.md".to_owned(),
        "CHANGELOG.md".to_owned(),
    ];
    let mut docs: Vec<String> = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    docs.sort();
    names.extend(docs);
    names.into_iter().map(|name| Page::read(&name)).collect()
}

impl Page {
    fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(root().join(name)).unwrap();
        let mut blocks: Vec<Block> = Vec::new();
        let (mut inside, mut indent) = (false, 0);
        for (n, line) in text.lines().enumerate() {
            let bare = line.trim_start();
            if let Some(info) = bare.strip_prefix("```") {
                indent = line.len() - bare.len();
                if !inside {
                    blocks.push(Block {
                        info: info.to_owned(),
                        text: String::new(),
                        line: n + 2,
                    });
                }
                inside = !inside;
            } else if inside {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line.get(indent..).unwrap_or_default());
                block.text.push('\n');
            }
        }
        assert!(!inside, "{name}: a fence is open");
        Self {
            name: name.to_owned(),
            text,
            blocks,
        }
    }

    /// The lines outside of fences.
    pub fn prose(&self) -> Vec<(usize, &str)> {
        let mut inside = false;
        let mut lines = Vec::new();
        for (n, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            } else if !inside {
                lines.push((n + 1, line));
            }
        }
        lines
    }

    /// What stands in backquotes in running text.
    pub fn inline(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (n, line) in self.prose() {
            found.extend(
                line.split('`')
                    .skip(1)
                    .step_by(2)
                    .map(|code| (n, code.to_owned())),
            );
        }
        found
    }

    /// Where its links lead.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (n, line) in self.prose() {
            for rest in line.split("](").skip(1) {
                found.push((n, rest.split(')').next().unwrap().to_owned()));
            }
        }
        found
    }

    /// Its headings' texts.
    pub fn headings(&self) -> Vec<(usize, String)> {
        let is_heading =
            |line: &str| line.starts_with('#') && line.trim_start_matches('#').starts_with(' ');
        let prose = self
            .prose()
            .into_iter()
            .filter(|(_, line)| is_heading(line));
        prose
            .map(|(n, line)| (n, line.trim_start_matches('#').trim().to_owned()))
            .collect()
    }

    /// What links can name in it, as GitHub makes it of headings.
    pub fn anchors(&self) -> BTreeSet<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut anchors = BTreeSet::new();
        for (_, heading) in self.headings() {
            let lower = heading.to_lowercase();
            let kept = lower.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                _ => c.is_alphanumeric().then_some(c),
            });
            let anchor: String = kept.collect();
            let times = seen
                .entry(anchor.clone())
                .and_modify(|times| *times += 1)
                .or_default();
            anchors.insert(if *times == 0 {
                anchor
            } else {
                format!("{anchor}-{times}")
            });
        }
        anchors
    }
}

/// A path without `..`.
pub fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::Normal(part) => parts.push(part.to_str().unwrap().to_owned()),
            _ => {}
        }
    }
    parts.join("/")
}

/// One blank for many, so that a string over several lines of source is found.
pub fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All that the sources say, with strings over several lines joined, and what is filled in at run time as it is
/// written there.
pub fn sources() -> String {
    fn read(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut all = String::new();
    for folder in ["src", "core/src"] {
        read(&root().join(folder), &mut all);
    }
    squeezed(&all.replace("\\\n", "\n"))
}
