//! A FUSE file system that takes requests and never answers: the cluster filesystem at its worst.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// `FUSE_INIT` (linux/fuse.h).
const INIT: u32 = 26;

/// The mount; dropping it answers everything that waits with an error and takes it away.
pub struct Hung {
    folder: PathBuf,
    device: Option<File>,
    requests: Arc<AtomicUsize>,
}

/// `FUSE_INTERRUPT`: who waits for an answer was sent a signal. That is no question.
const INTERRUPT: u32 = 36;

/// Mounts one over `folder`, visible in this mount namespace.
pub fn mount_hung(folder: &Path) -> Hung {
    // Nothing of this mount namespace is seen in the one that it was copied from.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .unwrap();
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
        device.as_raw_fd()
    );
    mount(
        Some("hung"),
        folder,
        Some("fuse"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let (mut reader, counted) = (device.try_clone().unwrap(), Arc::clone(&requests));
    std::thread::spawn(move || {
        let mut request = vec![0; 1 << 17];
        // The read fails when the mount goes.
        while reader.read(&mut request).is_ok() {
            let word = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
            if word(4) == INIT {
                // struct fuse_out_header, then struct fuse_init_out: protocol 7.31, everything else at its least.
                let mut answer = [0_u8; 80];
                answer[..4].copy_from_slice(&80_u32.to_le_bytes());
                answer[8..16].copy_from_slice(&request[8..16]);
                answer[16..20].copy_from_slice(&7_u32.to_le_bytes());
                answer[20..24].copy_from_slice(&31_u32.to_le_bytes());
                answer[36..40].copy_from_slice(&4096_u32.to_le_bytes());
                reader.write_all(&answer).unwrap();
            } else if word(4) != INTERRUPT {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    Hung {
        folder: folder.to_owned(),
        device: Some(device),
        requests,
    }
}

impl Hung {
    /// How many requests wait for an answer.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Takes the mount away from its folder, as `umount --lazy` does: whoever hangs in it still does. It stays mounted in
    /// another one, so that its end can be the end of that too.
    pub fn move_away(&mut self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let nothing = None::<&str>;
        mount(
            Some(&self.folder),
            folder,
            nothing,
            MsFlags::MS_MOVE,
            nothing,
        )
        .unwrap();
        folder.clone_into(&mut self.folder);
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // MNT_FORCE aborts the connection: whoever waits gets an error.
        let _ = umount2(&self.folder, MntFlags::MNT_FORCE);
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
        self.device = None;
    }
}
