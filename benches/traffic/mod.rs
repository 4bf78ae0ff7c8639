//! Traffic through a node, and what of it is done in a second.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::lab::{Frame, Guest, Mac, Node, PATIENCE, binary, run};
use super::ways::{Bridge, PEER, PEER_DEVICE, SENSOR_DEVICE, SOURCE, apply, node_with};

/// Frames sent between two looks at the clock.
const BURST: usize = 64;

/// Between two frames of a guest that starts.
const PACE: Duration = Duration::from_micros(50);

/// Frames through a node.
#[derive(Clone, Copy)]
pub struct Frames {
    /// Delivered to the peer in a second.
    pub per_second: f64,
    /// Copies to the sensor, for each frame delivered.
    pub copies: f64,
}

/// The smallest Ethernet frames (64 bytes with their check sequence), UDP, as fast as one thread sends them.
pub fn frames(node: &Node, time: Duration) -> Frames {
    let sender = node.sender(SOURCE);
    let ends = ((node.ip_of(SOURCE), 4000), (node.ip_of(PEER), 4000));
    let frame = Frame::new(node.mac(SOURCE), node.mac(PEER));
    let frame = frame.udp(ends.0, ends.1, "small").padded_to(60);
    let delivered = || node.statistic(PEER_DEVICE, "tx_packets") as f64;
    let copied = || node.statistic(SENSOR_DEVICE, "tx_packets") as f64;
    let (before, copied_before, began) = (delivered(), copied(), Instant::now());
    while began.elapsed() < time {
        for _ in 0..BURST {
            sender.send(&frame);
        }
    }
    let took = began.elapsed().as_secs_f64();
    let (delivered, copied) = (delivered() - before, copied() - copied_before);
    Frames {
        per_second: delivered / took,
        copies: copied / delivered,
    }
}

/// One TCP stream from the source to its peer: bits a second.
pub fn tcp(node: &Node, time: Duration) -> Result<f64, String> {
    let (mut client, mut server) = node.connect(SOURCE, PEER, PATIENCE)?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let (piece, began) = (vec![7; 128 << 10], Instant::now());
            // Should the other end have gone, it says so itself.
            while began.elapsed() < time && client.write_all(&piece).is_ok() {}
        });
        let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0);
        let began = Instant::now();
        loop {
            match server.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => bytes += len,
                Err(error) => return Err(format!("the stream broke: {error}")),
            }
        }
        Ok(bytes as f64 * 8.0 / began.elapsed().as_secs_f64())
    })
}

/// How long a guest that has just started talks without being mirrored: from the moment its port is plugged, over its
/// post-start hook, to the first frame of it at the sensor.
///
/// Each frame has a source address of its own, so each is a flow of its own: a flow that is as old as the mirror may go
/// on without it in Open vSwitch's userspace datapath, for as long as it is in use.
pub fn blind(bridge: Bridge, runs: usize) -> Result<Vec<Duration>, String> {
    let (node, name) = node_with(bridge);
    let vm = |vmid, n| Guest::vm(vmid).net(n, &format!("virtio,bridge={name}"));
    let sensor = vm(200, 1).net(0, "virtio");
    node.add_all([&vm(300, 0), &vm(301, 0), &vm(302, 0), &sensor]);
    node.start_guests([301, 302, 200]);
    apply(&node, "[blind]\nsource = 300\noutput = 200/net1\n")?;
    let mut times = Vec::new();
    for turn in 0..runs {
        let mut sensor = node.capture("200/net1");
        // So that the bridge knows the peer, and floods nothing to the sensor.
        let mut witness = node.capture("302/net0");
        let hello = Frame::new(node.mac("301/net0"), Mac::BROADCAST).carrying("hello");
        node.send("301/net0", &hello);
        witness.wait_for(|frame| frame.contains("hello"));
        node.start_guest(300);
        let began = Instant::now();
        let token = format!("blind-{turn}");
        let sender = node.sender("300/net0");
        let peer = node.mac("301/net0");
        let done = thread::scope(|scope| {
            let hook = scope.spawn(|| call_hook(&node, "post-start"));
            for flow in 0_u32.. {
                let [_, high, middle, low] = flow.to_be_bytes();
                let source = Mac([2, 0, 0, high, middle, low]);
                sender.send(&Frame::new(source, peer).carrying(&token));
                if sensor.count(&token) > 0 || began.elapsed() > PATIENCE {
                    break;
                }
                thread::sleep(PACE);
            }
            let took = began.elapsed();
            hook.join().map(|()| took)
        });
        let took = done.map_err(|_| "the hook failed".to_owned())?;
        if took >= PATIENCE {
            return Err("the sensor got nothing of a guest that started".to_owned());
        }
        times.push(took);
        call_hook(&node, "pre-stop");
        node.stop_guest(300);
        call_hook(&node, "post-stop");
    }
    Ok(times)
}

/// As Proxmox VE does, without the time that entering the namespace takes.
fn call_hook(node: &Node, phase: &str) {
    node.inside(|| {
        let mut command = Command::new(binary());
        command.args(["300", phase]).arg("--root").arg(node.root());
        run(command, "");
    });
}
