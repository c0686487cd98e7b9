//! Which ports are never connected to.

/// The bad ports of the Fetch Standard, section "Port blocking"
/// (<https://fetch.spec.whatwg.org/#port-blocking>): services whose protocols can be fooled with a
/// request, most of them about mail, chat and names.
const BAD_PORTS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101,
    102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427,
    465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990,
    993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667,
    6668, 6669, 6679, 6697, 10080,
];

/// Stores and control planes that a server can see and a browser usually cannot: SMB, SQL Server,
/// Oracle, Docker, etcd, `MySQL`, RDP, `PostgreSQL`, AMQP, VNC, `CouchDB`, Redis, Elasticsearch, the
/// kubelet, memcached, `MongoDB`.
const SERVICE_PORTS: &[u16] = &[
    445, 1433, 1521, 2375, 2376, 2379, 2380, 3306, 3389, 5432, 5672, 5900, 5984, 6379, 9200, 9300,
    10250, 11211, 27017,
];

/// Whether `port` belongs to a service that is not the web.
pub fn is_blocked_port(port: u16) -> bool {
    BAD_PORTS.contains(&port) || SERVICE_PORTS.contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_and_stores_are_blocked_and_the_web_is_not() {
        for port in [0, 22, 25, 6379, 10080, 11211] {
            assert!(is_blocked_port(port), "{port}");
        }
        for port in [80, 443, 3000, 8000, 8080, 8443, 65535] {
            assert!(!is_blocked_port(port), "{port}");
        }
    }
}
