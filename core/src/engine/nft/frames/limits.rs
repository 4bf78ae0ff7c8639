//! What the kernel should not be asked to do.

/// The most rules that one filter may need. A table holds them once for each session, and nft(8) loads some 20,000 a second.
pub const MAX_RULES: usize = 1000;

/// The most ranges of values in all its rules together.
pub const MAX_RANGES: usize = 50_000;

/// The longest way through the chains. The kernel refuses more than 16 (`NFT_JUMP_STACK_SIZE`; goto counts as jump
/// does), and three are left for others: the base chain, one between it and these, and the one that copies.
pub const MAX_DEPTH: usize = 13;

/// How many chains all the ways through them visit, counted once for each way. That is what the kernel does for each hook
/// when rules change (`nft_chain_validate`), and newer ones bound it for a network namespace as a whole
/// (`nf_tables_jumps_max_netns`).
pub const MAX_VISITS: usize = 2000;

/// The most rules that the whole table may need. A reconcile has ten seconds to load them, and a hook five to read them, to
/// change a few, and to read them again; also where others want the processor.
pub const MAX_TABLE_RULES: usize = 15_000;

/// The most questions on a way. Walking along the ways takes room on the stack.
pub(super) const MAX_QUESTIONS: usize = 150;

/// The filter is right, but the kernel should not be asked to do all that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// More rules than [`MAX_RULES`].
    #[error(
        "the filter needs more than {MAX_RULES} nftables rules: join hosts that want the same ports in one \
         parenthesis, or make several sessions of it"
    )]
    Rules,
    /// More ranges than [`MAX_RANGES`].
    #[error(
        "the filter needs more than {MAX_RANGES} values in nftables rules: name networks or ranges of ports \
         instead of single ones, or make several sessions of it"
    )]
    Ranges,
    /// A longer way than [`MAX_DEPTH`].
    #[error(
        "the filter asks {0} questions one after the other, and the kernel allows {MAX_DEPTH}: use fewer \
         different masks and `vlan`, or make several sessions of it"
    )]
    Depth(usize),
    /// More ways than [`MAX_VISITS`] allows.
    #[error(
        "the filter's rules branch in more than {MAX_VISITS} ways: join hosts that want the same ports in one \
         parenthesis, or make several sessions of it"
    )]
    Visits,
    /// A frame may be asked more than so many questions, in however few chains.
    #[error(
        "the filter asks more than {} questions of one frame: use fewer different masks and `vlan`, or make several \
         sessions of it",
        MAX_QUESTIONS
    )]
    Questions,
    /// The sessions before it have used up what a node's table may have.
    #[error(
        "not copied: this node's nftables table has no room for the session; all sessions together may need {MAX_TABLE_RULES} \
         rules, and sessions have their turn in the order of their names; join sessions, shorten filters, or name fewer sources"
    )]
    Table,
    /// It was given up before its size was known.
    #[error(
        "the filter combines its conditions in too many ways (given up after {0} steps): join hosts that want \
         the same ports in one parenthesis, or make several sessions of it"
    )]
    Work(usize),
}
