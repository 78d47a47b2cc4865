import HTTPTypes

/// Something that is used up, and comes back evenly within a minute.
struct RateBucket {
    let capacity: Int
    private var level: Double
    private var time: ContinuousClock.Instant

    /// A full one.
    init(capacity: Int, at time: ContinuousClock.Instant) {
        self.capacity = capacity
        level = Double(capacity)
        self.time = time
    }

    private var rate: Double { Double(capacity) / 60 }

    mutating func refill(at now: ContinuousClock.Instant) {
        guard now > time else { return }
        level = min(Double(capacity), level + (now - time).inSeconds * rate)
        time = now
    }

    /// Whole units that are there.
    var remaining: Int { max(0, Int((level + 1e-6).rounded(.down))) }

    func has(_ amount: Int) -> Bool { level + 1e-6 >= Double(amount) }

    /// May leave a debt, which has to come back first.
    mutating func take(_ amount: Int) { level -= Double(amount) }

    mutating func giveBack(_ amount: Int) { level = min(Double(capacity), level + Double(amount)) }

    /// Seconds until so much is there.
    func wait(for amount: Int) -> Double { max(0, (Double(amount) - level) / rate) }
}

/// Holds keys to their limits of requests and tokens a minute. Confined to the server; its time is what it is told.
///
/// **Requests** count when they come. **Tokens** are reserved before the engine gets a request: the prompt's, and `max_tokens` for each answer if the request
/// says so. When the answer ends, however it ends, what was reserved is replaced by what was used: the prompt's tokens and those that were generated. So a
/// key is charged what it used. A request without `max_tokens` reserves its prompt alone and may leave a debt; the next one then waits until that is paid.
///
/// Limits refill evenly: a key with 60 requests a minute has one more each second.
package final class RateLimiter {
    private struct Buckets {
        var requests: RateBucket?
        var tokens: RateBucket?
    }

    private var buckets: [String: Buckets] = [:]

    /// The key's buckets as they are now; `nil` for who has no limits.
    private func update<Value>(
        _ caller: Caller, at now: ContinuousClock.Instant, _ body: (inout Buckets) throws(APIError) -> Value
    ) throws(APIError) -> Value? {
        guard let key = caller.keyID, caller.requestsPerMinute != nil || caller.tokensPerMinute != nil else { return nil }
        var state =
            buckets[key]
            ?? Buckets(
                requests: caller.requestsPerMinute.map { RateBucket(capacity: $0, at: now) },
                tokens: caller.tokensPerMinute.map { RateBucket(capacity: $0, at: now) })
        state.requests?.refill(at: now)
        state.tokens?.refill(at: now)
        defer { buckets[key] = state }
        return try body(&state)
    }

    private static func refusal(_ bucket: RateBucket, _ unit: APIError.Category, _ amount: Int) -> APIError {
        .rateLimit(
            unit, limit: bucket.capacity, remaining: bucket.remaining, requested: amount,
            wait: amount > bucket.capacity ? nil : max(1, Int(bucket.wait(for: amount).rounded(.up))))
    }

    /// Counts a request.
    func takeRequest(of caller: Caller, at now: ContinuousClock.Instant) throws(APIError) {
        _ = try update(caller, at: now) { state throws(APIError) in
            guard let bucket = state.requests else { return }
            guard bucket.has(1) else { throw Self.refusal(bucket, .requests, 1) }
            state.requests?.take(1)
        }
    }

    /// Takes tokens before they are used.
    func reserve(_ amount: Int, for caller: Caller, at now: ContinuousClock.Instant) throws(APIError) {
        _ = try update(caller, at: now) { state throws(APIError) in
            guard let bucket = state.tokens else { return }
            guard bucket.has(amount) else { throw Self.refusal(bucket, .tokens, amount) }
            state.tokens?.take(amount)
        }
    }

    /// Replaces a reservation by what was used.
    func settle(reserved: Int, used: Int, for caller: Caller, at now: ContinuousClock.Instant) {
        _ = try? update(caller, at: now) { state throws(APIError) in
            state.tokens?.giveBack(reserved)
            state.tokens?.take(used)
        }
    }

    /// OpenAI's six fields, of which a key has those of the limits that it has.
    func fields(for caller: Caller, at now: ContinuousClock.Instant) -> HTTPFields {
        let found = try? update(caller, at: now) { state throws(APIError) in state }
        var fields = HTTPFields()
        for (bucket, unit) in [(found?.requests, "requests"), (found?.tokens, "tokens")] {
            guard let bucket else { continue }
            for (name, value) in [
                ("limit", String(bucket.capacity)), ("remaining", String(bucket.remaining)),
                ("reset", Self.text(ofSeconds: bucket.wait(for: bucket.capacity))),
            ] {
                if let name = HTTPField.Name("x-ratelimit-\(name)-\(unit)") { fields[name] = value }
            }
        }
        return fields
    }

    /// As OpenAI writes spans: `0s`, `120ms`, `1.5s`, `6m0s`. Rounded up to milliseconds.
    package static func text(ofSeconds seconds: Double) -> String {
        let milliseconds = Int((seconds * 1000 - 1e-6).rounded(.up))
        if milliseconds <= 0 { return "0s" }
        if milliseconds < 1000 { return "\(milliseconds)ms" }
        let minutes = milliseconds / 60_000, rest = milliseconds % 60_000
        var text = "\(rest / 1000)"
        if rest % 1000 > 0 {
            let digits = String(rest % 1000 + 1000).dropFirst()
            text += "." + digits.reversed().drop { $0 == "0" }.reversed().map(String.init).joined()
        }
        return minutes > 0 ? "\(minutes)m\(text)s" : text + "s"
    }
}
