//! The techniques for probing ports, and whether this process may use them. This module has no
//! state.

/// The technique with which a port is probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Technique {
    /// A connect(2), which needs no privilege.
    #[default]
    Connect,
    /// A SYN sent through a raw socket, which needs CAP_NET_RAW.
    Syn,
}

impl Technique {
    /// Both techniques, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Connect, Self::Syn];

    /// Parses a label.
    ///
    /// # Errors
    /// One sentence that says which values are expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let found = Self::ALL.into_iter().find(|technique| technique.label() == text);
        found.ok_or("must be connect or syn")
    }

    /// The word for the technique in parameters, flags, log records and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Syn => "syn",
        }
    }
}

/// Whether this process may send raw packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RawAccess {
    /// The process may send raw packets: a raw socket was opened and closed at the start.
    Permitted,
    /// The process may not send raw packets, or the permission was not checked.
    #[default]
    Denied,
}

/// The advice in error messages on how to grant the permission.
pub const RAW_ADVICE: &str = "grant CAP_NET_RAW: docker or podman run --cap-add NET_RAW, \
     capabilities.add [NET_RAW] in Kubernetes, or setcap cap_net_raw=p on the binary";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_technique_is_read_by_its_own_label() {
        for technique in Technique::ALL {
            assert_eq!(Technique::parse(technique.label()), Ok(technique));
        }
        for text in ["", "SYN", "syn ", "tcp"] {
            assert_eq!(Technique::parse(text), Err("must be connect or syn"));
        }
    }
}
