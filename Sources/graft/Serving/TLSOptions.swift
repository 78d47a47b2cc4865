import ArgumentParser

/// The options of `graft serve` that decide whether it speaks TLS.
struct TLSOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The server's certificate in PEM, then those of its authorities: the server speaks TLS. SIGHUP reads both files again.", valueName: "file"))
    var tlsCertificate: String?
    @Option(help: ArgumentHelp("The certificate's private key in PEM, not encrypted.", valueName: "file"))
    var tlsPrivateKey: String?
    @Flag(help: "Listen in clear text on an address that others can reach.")
    var insecureListen = false

    /// - Returns: nil when no certificate is set.
    /// - Throws: when only one of the two files is named.
    func files(_ settings: Settings) throws -> TLSFiles? {
        let certificate = tlsCertificate ?? settings.string("server.tls_certificate", "")
        let key = tlsPrivateKey ?? settings.string("server.tls_private_key", "")
        guard !(certificate.isEmpty && key.isEmpty) else { return nil }
        guard !key.isEmpty else {
            throw CommandError("found the certificate \(certificate) without its private key; name that with --tls-private-key or the setting server.tls_private_key")
        }
        guard !certificate.isEmpty else {
            throw CommandError("found the private key \(key) without its certificate; name that with --tls-certificate or the setting server.tls_certificate")
        }
        return TLSFiles(certificate: certificate, privateKey: key)
    }

    func listensInsecurely(_ settings: Settings) throws -> Bool {
        try insecureListen || settings.bool("server.insecure_listen", false)
    }
}
