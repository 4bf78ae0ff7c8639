//! What the kernel says over rtnetlink and nfnetlink: any bytes end, in no more messages than fit.

/// Checks one input: an answer.
pub fn check(data: &[u8]) {
    // A message has a header of 16 bytes, and the last one may be cut off.
    assert!(pve_span::fuzzing::answer(data) <= data.len() / 16 + 1);
}
