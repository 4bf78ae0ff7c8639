use crate::cli::ImportArgs;
use std::path::Path;
/// x
pub fn run(_root: &Path, _args: &ImportArgs) -> u8 {
    2
}
