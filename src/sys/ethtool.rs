//! A device's features by name and bit (linux/ethtool.h, `ETHTOOL_GFEATURES`), as `ethtool -k` has them; the older
//! requests (`ETHTOOL_STSO` …) switch several at once, and could not be undone exactly.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use pve_span_core::engine::port::Switch;
use pve_span_core::model::IfName;

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
/// The names of the features.
const ETH_SS_FEATURES: u32 = 4;
/// The room of a name, in bytes.
const ETH_GSTRING_LEN: usize = 32;
/// More features than any kernel has; they had to fit 64 bits for long.
const MOST: usize = 1024;

/// Which of a device's features there are, are asked for and work: a bit each, in words of 32.
pub struct Features<'a> {
    device: &'a IfName,
    socket: OwnedFd,
    names: Vec<String>,
    words: Vec<Word>,
}

/// struct ethtool_get_features_block.
#[derive(Clone, Copy)]
struct Word {
    available: u32,
    requested: u32,
    active: u32,
}

impl<'a> Features<'a> {
    /// Asks the kernel.
    pub fn of(device: &'a IfName) -> io::Result<Self> {
        let socket = socket(
            // SIOCETHTOOL works on a socket of any family, and a service that is to do without the Internet has this one.
            AddressFamily::Unix,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let names = names(&socket, device)?;
        let words = words(&socket, device, names.len())?;
        Ok(Self {
            device,
            socket,
            names,
            words,
        })
    }

    /// The names among them that are asked for and can be switched.
    pub fn requested(&self, is_meant: impl Fn(&str) -> bool) -> BTreeSet<String> {
        self.each()
            .filter(|(name, word, bit)| {
                word.available & word.requested & bit != 0 && is_meant(name)
            })
            .map(|(name, ..)| name.to_owned())
            .collect()
    }

    /// Those of the names that could be switched, and work.
    pub fn active(&self, names: &BTreeSet<String>) -> Vec<String> {
        self.each()
            .filter(|(name, word, bit)| {
                word.available & word.active & bit != 0 && names.contains(*name)
            })
            .map(|(name, ..)| name.to_owned())
            .collect()
    }

    /// Asks for the names, or for doing without, as far as they can be switched.
    pub fn request(&self, names: &BTreeSet<String>, to: Switch) -> io::Result<()> {
        let mut words = vec![0; self.words.len()];
        for (at, name) in self.names.iter().enumerate() {
            if let (Some(word), true) = (words.get_mut(at / 32), names.contains(name)) {
                *word |= 1_u32 << (at % 32);
            }
        }
        // struct ethtool_sfeatures: which bits are meant, and what they shall be.
        let mut request = vec![ETHTOOL_SFEATURES, count(words.len())];
        for (meant, seen) in words.iter().zip(&self.words) {
            let meant = meant & seen.available;
            request.extend([meant, if to.is_on() { meant } else { 0 }]);
        }
        ethtool(&self.socket, self.device, &mut request)
    }

    /// Each feature's name, its word and its bit there.
    fn each(&self) -> impl Iterator<Item = (&str, Word, u32)> {
        self.names.iter().enumerate().filter_map(|(at, name)| {
            let word = self.words.get(at / 32)?;
            (!name.is_empty()).then_some((name.as_str(), *word, 1_u32 << (at % 32)))
        })
    }
}

/// The names of all features that this kernel knows, by bit.
fn names(socket: &OwnedFd, device: &IfName) -> io::Result<Vec<String>> {
    // struct ethtool_sset_info: its mask of sets has 64 bits; how many names that one has comes behind it.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 0, 0, 0];
    if let Some(low) = info.get_mut(low_word()) {
        *low = 1 << ETH_SS_FEATURES;
    }
    ethtool(socket, device, &mut info)?;
    let [.., features] = info;
    let features = usize::try_from(features).unwrap_or(usize::MAX);
    if features > MOST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // struct ethtool_gstrings. The kernel writes as many as it has just said that there are, whatever is said here.
    let mut strings = vec![ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count(features)];
    strings.resize(3 + MOST * ETH_GSTRING_LEN / 4, 0);
    ethtool(socket, device, &mut strings)?;
    let bytes: Vec<u8> = strings
        .iter()
        .skip(3)
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let name = |bytes: &[u8]| {
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    };
    Ok(bytes
        .chunks(ETH_GSTRING_LEN)
        .take(features)
        .map(name)
        .collect())
}

/// Where the lower half of a number of 64 bits stands that begins at the third word.
fn low_word() -> usize {
    if cfg!(target_endian = "big") { 3 } else { 2 }
}

/// What the device's features are like.
fn words(socket: &OwnedFd, device: &IfName, features: usize) -> io::Result<Vec<Word>> {
    let size = features.div_ceil(32);
    // struct ethtool_gfeatures: four words for each 32 features.
    let mut answer = vec![0; 2 + 4 * size];
    for (word, value) in answer.iter_mut().zip([ETHTOOL_GFEATURES, count(size)]) {
        *word = value;
    }
    ethtool(socket, device, &mut answer)?;
    let words = answer.get(2..).unwrap_or_default().chunks_exact(4);
    Ok(words
        .map(|word| {
            let at = |at: usize| word.get(at).copied().unwrap_or_default();
            Word {
                available: at(0),
                requested: at(1),
                active: at(2),
            }
        })
        .collect())
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// One request (netdevice(7), `SIOCETHTOOL`). `request` begins with the command and has room for all of its answer.
#[allow(unsafe_code)]
fn ethtool(socket: &OwnedFd, device: &IfName, request: &mut [u32]) -> io::Result<()> {
    let name = device.as_str().as_bytes();
    let mut ifr_name = [0; libc::IFNAMSIZ];
    if name.len() >= ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in ifr_name.iter_mut().zip(name) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru {
        ifru_data: request.as_mut_ptr().cast(),
    };
    let mut ifreq = libc::ifreq { ifr_name, ifr_ifru };
    // SAFETY: the descriptor is open, and `ifreq` is a whole struct ifreq with a name that ends with NUL. Its data are
    // `request`, alone ours until the call is over; callers give each command the size that it says or the most that
    // there can be.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut ifreq) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
