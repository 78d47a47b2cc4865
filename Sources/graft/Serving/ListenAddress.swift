import Glibc

/// Where `graft serve` listens, and whether others than this machine could reach it there.
package struct ListenAddress {
    /// An address or a name, IPv6 without brackets.
    let host: String
    let usesTLS: Bool

    package init(host: String, usesTLS: Bool) {
        self.host = host
        self.usesTLS = usesTLS
    }

    /// Only this machine can connect. A name other than `localhost` counts as reachable, whatever it resolves to today.
    package var isLoopback: Bool {
        if host == "localhost" { return true }
        var four = in_addr()
        if inet_pton(AF_INET, host, &four) == 1 { return UInt32(bigEndian: four.s_addr) >> 24 == 127 }
        var six = in6_addr()
        guard inet_pton(AF_INET6, host, &six) == 1 else { return false }
        return withUnsafeBytes(of: &six) { $0.dropLast().allSatisfy { $0 == 0 } && $0.last == 1 }
    }

    /// The URL of the server, once the port is known.
    package func url(port: Int) -> String {
        "\(usesTLS ? "https" : "http")://\(host.contains(":") ? "[\(host)]" : host):\(port)"
    }

    /// Prompts, answers and keys must not cross a network in clear text by accident.
    /// - Parameter insecure: the user wants exactly that.
    package func requireSafe(insecure: Bool) throws {
        guard !isLoopback, !usesTLS, !insecure else { return }
        throw CommandError(
            "graft does not listen on \(host) without TLS, because others could read prompts, answers and keys on their way; give a certificate with "
                + "--tls-certificate and --tls-private-key (settings server.tls_certificate and server.tls_private_key), or say --insecure-listen "
                + "(setting server.insecure_listen) if a proxy in front does TLS or nobody else can reach that address")
    }
}
