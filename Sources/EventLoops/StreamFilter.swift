/// What stands between a stream's socket and its delegate and changes the bytes of both directions, such as TLS.
///
/// Called on the loop's thread, and never from within itself. It must not touch the stream.
public protocol StreamFilter: AnyObject {
    /// Takes bytes that the peer sent.
    /// - Returns: how many of them, at least one; the rest comes again after `read` has said `.needsMore`.
    func receive(_ bytes: UnsafeRawBufferPointer) -> Int
    /// Gives bytes for the delegate.
    func read(into buffer: UnsafeMutableRawBufferPointer) -> StreamFilterResult
    /// Takes bytes that the delegate wrote off the front of `output`, as many as it will (none while it waits for the peer), and puts what is to be
    /// sent for them behind `wire`.
    /// - Returns: false when the connection is broken.
    func seal(_ output: inout ByteQueue, into wire: inout ByteQueue) -> Bool
    /// Puts what the filter itself has for the peer, answers of a handshake and alerts, behind `wire`.
    func moveReplies(to wire: inout ByteQueue)
    /// The delegate writes nothing more: puts the filter's farewell behind `wire`.
    func finish(into wire: inout ByteQueue)
    /// The peer's end came, or the connection broke, before the peer had said that it ends.
    func peerIsGone()
    /// The stream is being closed. Nothing follows.
    func streamWillClose()
}

/// What a filter made of the peer's bytes.
public enum StreamFilterResult {
    /// So many bytes for the delegate.
    case bytes(Int)
    /// Everything that came is used.
    case needsMore
    /// The peer sends nothing more.
    case ended
    /// The connection is broken, and why. What `moveReplies` gives may still be sent.
    case failed(String)
    /// The peer does not speak what the filter does, and nothing was sent so far: the stream goes on without a filter, but what was received is lost.
    case unfiltered
}
