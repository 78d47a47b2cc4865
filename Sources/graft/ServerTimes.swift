import HTTPServing

extension HTTPServerConfiguration {
    /// Takes over how long clients may take, which makes the difference between a slow client and an attack.
    mutating func readTimes(_ settings: Settings) throws(SettingsError) {
        let day = 86_400
        headerTimeout = .seconds(try settings.integer("server.header_seconds", 10, in: 1...day))
        bodyTimeout = .seconds(try settings.integer("server.body_idle_seconds", 30, in: 1...day))
        idleTimeout = .seconds(try settings.integer("server.idle_seconds", 75, in: 1...day))
        let write = try settings.integer("server.write_idle_seconds", 30, in: 1...day)
        writeTimeout = .seconds(write)
        writeProgress = write * (try settings.integer("server.min_bytes_per_second", 1024, in: 0...1 << 30))
    }
}
