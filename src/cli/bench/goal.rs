//! What is measured, and what is good enough.

use clap::ValueEnum;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Goal {
    /// Events stored a second, 100 a request ÷ rows of COPY BINARY
    G1,
    /// Requests with one event a second ÷ single-row inserts
    G2,
    /// How long such a request takes (p99) ÷ the same at a service that inserts a row for each request
    G2b,
    /// Events processed a second while none come in ÷ rows of COPY BINARY
    G3,
    /// Events a second all the way into audiences ÷ rows of COPY BINARY
    G4,
    /// As G4, but users send five events one after the other
    G4s,
    /// As G4, but every third event makes two profiles one
    G4m,
    /// CPU time of an event in G4, Postgres included ÷ what parsing and checking it takes
    G5,
    /// Time until a transition is seen (p99) at half the rate of G4 ÷ time until an event is acknowledged (p99)
    G6,
    /// Profiles read a second ÷ point selects
    G7,
    /// Sizes of audiences read a second ÷ point selects
    G10,
    /// A second ÷ the time until a transition is seen (p99), at half the rate of G4
    Fresh,
    /// A second ÷ the time until an exit is seen after its instant (at most), 100,000 of them within a minute
    Exits,
    /// G4 while one definition after the other is backfilled ÷ G4
    Backfill,
    /// Changes a second that arrive at a receiver here, one request each ÷ 2,000
    Deliver,
    /// G4 while all audiences are sent to a receiver here ÷ G4
    Outbox,
    /// How late others are told (p99) without a hostile receiver ÷ beside one; and the memory it costs
    Hostile,
    /// 8 MiB ÷ the memory that a hostile receiver costs: measured with the other
    #[value(skip)]
    HostileMemory,
    /// As G4, but every event is of somebody new; only when it is asked for
    New,
    /// CPU time of an event among `--profiles` users ÷ among the first 100,000; only when it is asked for
    Scale,
    /// The most memory at the beginning of a full sync of 500,000 ÷ until its end; only when it is asked for
    Sync,
}

/// When a ratio is good enough, and what it is meant to become.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    /// Not below the first; the second is aimed at.
    AtLeast(f64, f64),
    /// Not above the first; the second is aimed at.
    AtMost(f64, f64),
}

impl Bound {
    /// What has to be reached, and what is aimed at.
    pub(super) const fn figures(self) -> (f64, f64) {
        match self {
            Self::AtLeast(enough, aim) | Self::AtMost(enough, aim) => (enough, aim),
        }
    }

    /// Whether a ratio is on the right side of a figure.
    pub(super) fn holds(self, ratio: f64, figure: f64) -> bool {
        match self {
            Self::AtLeast(..) => ratio >= figure,
            Self::AtMost(..) => ratio <= figure,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::AtLeast(..) => "at least",
            Self::AtMost(..) => "at most",
        }
    }
}

impl Goal {
    /// Measured when nothing else is asked for: the others leave crowds behind that would be in the way.
    pub(super) const fn is_usual(self) -> bool {
        !matches!(self, Self::New | Self::Scale | Self::Sync)
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::G1 => "G1 stored events/s ÷ COPY rows/s",
            Self::G2 => "G2 one-event requests/s ÷ single-row inserts/s",
            Self::G2b => "G2b ms of a one-event request, p99 ÷ of a service with an INSERT a request",
            Self::G3 => "G3 events/s into audiences while none come in ÷ COPY rows/s",
            Self::G4 => "G4 events/s into audiences ÷ COPY rows/s",
            Self::G4s => "G4s events/s into audiences, in sessions of five ÷ COPY rows/s",
            Self::G4m => "G4m events/s into audiences, every third of them merging ÷ COPY rows/s",
            Self::G5 => "G5 CPU µs/event in G4, Postgres included ÷ to parse and check it",
            Self::G6 => "G6 ms until a transition is seen, p99 ÷ until it is acknowledged",
            Self::G7 => "G7 profile reads/s ÷ point selects/s",
            Self::G10 => "G10 audience size reads/s ÷ point selects/s",
            Self::Fresh => "Fresh: 1,000 ms ÷ ms until a transition is seen, p99 at half the rate of G4",
            Self::Exits => {
                "Exits: 1,000 ms ÷ ms until an exit is seen, the latest of 100,000 within a minute"
            }
            Self::Backfill => "Backfill: events/s into audiences while others are backfilled ÷ without",
            Self::Deliver => "Deliver: changes/s that arrive at a receiver beside, one request each ÷ 2,000",
            Self::Outbox => "Outbox: events/s into audiences while all of these are sent on ÷ without",
            Self::Hostile => {
                "Hostile: ms until others are told, p99, without a hostile receiver ÷ beside one"
            }
            Self::HostileMemory => {
                "HostileMemory: 8 MiB ÷ MiB more that the service has beside a hostile receiver"
            }
            Self::New => "New: events/s into audiences, each of somebody new ÷ COPY rows/s",
            Self::Scale => "Scale: CPU µs/event among all users ÷ among the first 100,000",
            Self::Sync => {
                "Sync: most MiB while the first tenth of 500,000 members is sent ÷ until all of them are"
            }
        }
    }

    pub(super) const fn bound(self) -> Bound {
        use Bound::{AtLeast, AtMost};
        match self {
            Self::G1 => AtLeast(2.0, 4.0),
            Self::G2 => AtLeast(1.3, 2.0),
            Self::G2b => AtMost(0.5, 0.25),
            Self::G3 => AtLeast(0.8, 1.5),
            Self::G4 | Self::G4s | Self::G4m => AtLeast(0.6, 1.2),
            Self::G5 => AtMost(12.0, 6.0),
            Self::G6 => AtMost(5.0, 2.0),
            Self::G7 => AtLeast(0.5, 1.0),
            Self::G10 => AtLeast(0.8, 1.0),
            Self::Fresh | Self::Exits | Self::Deliver | Self::HostileMemory => AtLeast(1.0, 1.0),
            Self::Backfill => AtLeast(0.8, 0.8),
            Self::Outbox => AtLeast(0.75, 0.75),
            // A fifth later at most.
            Self::Hostile => AtLeast(0.83, 0.83),
            Self::New => AtLeast(0.6, 0.6),
            Self::Scale => AtMost(1.5, 1.5),
            Self::Sync => AtLeast(0.95, 0.95),
        }
    }
}
