//! tcpdump, which says what an expression means.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Frames as a capture file, numbered by their time stamps.
pub fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_ne_bytes());
    file.extend(2_u16.to_ne_bytes());
    file.extend(4_u16.to_ne_bytes());
    for word in [0, 0, 262_144, 1_u32] {
        file.extend(word.to_ne_bytes());
    }
    for (number, frame) in frames.iter().enumerate() {
        let length = u32::try_from(frame.len()).unwrap();
        for word in [u32::try_from(number).unwrap(), 0, length, length] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(frame);
    }
    file
}

/// Whether tcpdump may improve the program before it runs it, which can change what it says of frames that end too early.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    AsWritten,
    Optimized,
}

/// Which of the frames in a capture file tcpdump keeps: a truth for each.
pub fn keeps(pcap: &[u8], count: usize, expression: &str, program: Program) -> Vec<bool> {
    let mut command = Command::new("tcpdump");
    if program == Program::AsWritten {
        command.arg("-O");
    }
    command.args(["-n", "-Z", "root", "-r", "-", "-w", "-", expression]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("tcpdump is the oracle of this test and cannot be run ({error}): apt install tcpdump")
        });
    let mut input = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // An expression that it refuses is told of below.
            let _ = input.write_all(pcap);
        });
        child.wait_with_output().unwrap()
    });
    let mut kept = vec![false; count];
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            complaint.contains("expression rejects all packets"),
            "`{expression}`: {complaint}"
        );
        return kept;
    }
    let mut rest = output.stdout.get(24..).unwrap_or_default();
    while let Some((head, behind)) = rest.split_at_checked(16) {
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap()) as usize;
        kept[word(0)] = true;
        rest = &behind[word(8)..];
    }
    kept
}
