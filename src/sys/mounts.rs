//! What is mounted where, without touching it: a look at the mount itself may hang.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The number of the device that is mounted there, by the list of this process's mounts: its minor one, as file systems
/// without a disk have no major one.
pub fn device_at(folder: &Path) -> Option<u32> {
    // Only the last part may hang.
    let parent = folder.parent()?.canonicalize().ok()?;
    let folder = parent.join(folder.file_name()?);
    // A file in /proc has no size that tells how much room is needed.
    let mut list = String::with_capacity(16 << 10);
    let mut file = File::open("/proc/thread-self/mountinfo").ok()?;
    file.read_to_string(&mut list).ok()?;
    device_in(&list, &folder)
}

/// The last one that was mounted there hides those before it. Fields as in proc(5), `/proc/pid/mountinfo`; a name with a blank
/// or a backslash, which are written in another way there, is not found.
fn device_in(list: &str, folder: &Path) -> Option<u32> {
    let mut found = list.lines().rev().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let (device, _, at) = (fields.next()?, fields.next()?, fields.next()?);
        (Path::new(at) == folder).then_some(device)
    });
    found.next()?.split_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_at_a_place_counts() {
        let list = "22 1 0:21 / /proc rw - proc proc rw\n\
            40 1 0:48 / /etc/pve rw - fuse /dev/fuse rw\n\
            41 1 0:49 / /etc/pve/x rw - tmpfs tmpfs rw\n\
            42 1 0:50 / /etc/pve rw - fuse /dev/fuse rw\n";
        let at = |folder: &str| device_in(list, Path::new(folder));
        assert_eq!(at("/etc/pve"), Some(50));
        assert_eq!(at("/etc"), None);
    }
}
