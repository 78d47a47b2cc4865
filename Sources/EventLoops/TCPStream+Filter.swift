/// How a stream works with its filter. All of this does nothing without one.
extension TCPStream {
    /// What the delegate gets at once.
    private static let filterBufferSize = 16384

    // MARK: - Reading

    /// Lets the filter work on what came. The delegate may do anything meanwhile.
    func open(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while !rest.isEmpty, let filter, !isClosed, !hasFailed, !hasReachedEnd {
            rest = UnsafeRawBufferPointer(rebasing: rest[filter.receive(rest)...])
            withUnsafeTemporaryAllocation(byteCount: TCPStream.filterBufferSize, alignment: 16) { buffer in
                while !isClosed, !hasFailed, !hasReachedEnd, deliver(filter.read(into: buffer), in: buffer) {}
            }
        }
        guard !isClosed, !hasFailed, let filter else { return }
        filter.moveReplies(to: &wire)
        // A handshake that is complete lets go of what was written before.
        if !wire.isEmpty || !output.isEmpty { setNeedsFlush() }
    }

    /// - Returns: whether there may be more.
    private func deliver(_ result: StreamFilterResult, in buffer: UnsafeMutableRawBufferPointer) -> Bool {
        switch result {
        case .bytes(let count):
            delegate?.stream(self, didRead: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            return true
        case .needsMore:
            return false
        case .ended:
            reachEnd()
            return false
        case .failed(let reason):
            filter?.moveReplies(to: &wire)
            // An alert that finds no room is not worth waiting for.
            if inFlight.isEmpty { _ = offer(&wire) }
            fail(EventLoopError(.connectionLost, "reading from a connection: \(reason)"))
            return false
        case .unfiltered:
            filter = nil
            delegate?.streamLostFilter(self)
            return false
        }
    }

    // MARK: - Writing

    /// Lets the filter work on what was written.
    /// - Returns: whether there is something to send.
    func seal() -> Bool {
        guard let filter, !hasFailed else { return false }
        guard filter.seal(&output, into: &wire) else {
            fail(EventLoopError(.connectionLost, "writing to a connection: its encryption is broken"))
            return false
        }
        if isFinishing, output.isEmpty, !hasFinishedFilter {
            hasFinishedFilter = true
            filter.finish(into: &wire)
        }
        return !wire.isEmpty
    }

    // MARK: - The end

    /// Takes leave of the peer if everything was sent and nothing is cut off.
    func closeFilter() {
        guard let filter else { return }
        if endsOrderly, !hasFailed, !hasFinishedFilter, output.isEmpty, wire.isEmpty, inFlight.isEmpty {
            filter.finish(into: &wire)
            _ = offer(&wire)
        }
        filter.streamWillClose()
        self.filter = nil
    }
}
