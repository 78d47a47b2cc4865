/// Finds special tokens in text: the leftmost first, the longest of those that begin at one place.
///
/// A trie in flat arrays; the children of a node are a linked list, those of the root a table, because most bytes of a text begin no
/// special token. A position costs at most the longest special token, so a text costs linear time.
struct SpecialTokenMatcher: Sendable {
    struct Match {
        var id: Int32
        var end: Int
    }

    private struct Node: BitwiseCopyable {
        var byte: UInt8
        /// Token that ends here and may stand in any text, -1 when none.
        var openToken: Int32 = -1
        /// Token that ends here and is recognised only in trusted text, -1 when none.
        var guardedToken: Int32 = -1
        var firstChild: Int32 = -1
        var nextSibling: Int32 = -1
    }

    private let nodes: ConstantBuffer<Node>
    private let roots: ConstantBuffer<Int32>
    private let hasTokens: Bool

    /// - Parameter tokens: spellings of one byte or more; of two with the same spelling the first counts.
    init(_ tokens: [(spelling: String, id: Int32, isGuarded: Bool)]) {
        var nodes: [Node] = []
        var roots = [Int32](repeating: -1, count: 256)
        for token in tokens {
            var current: Int32 = -1
            for byte in token.spelling.utf8 {
                var child = current < 0 ? roots[Int(byte)] : nodes[Int(current)].firstChild
                while child >= 0, nodes[Int(child)].byte != byte { child = nodes[Int(child)].nextSibling }
                if child < 0 {
                    child = Int32(nodes.count)
                    nodes.append(Node(byte: byte))
                    if current < 0 {
                        roots[Int(byte)] = child
                    } else {
                        nodes[Int(child)].nextSibling = nodes[Int(current)].firstChild
                        nodes[Int(current)].firstChild = child
                    }
                }
                current = child
            }
            guard current >= 0 else { continue }
            if token.isGuarded {
                if nodes[Int(current)].guardedToken < 0 { nodes[Int(current)].guardedToken = token.id }
            } else if nodes[Int(current)].openToken < 0 {
                nodes[Int(current)].openToken = token.id
            }
        }
        hasTokens = !nodes.isEmpty
        self.nodes = ConstantBuffer(nodes)
        self.roots = ConstantBuffer(roots)
    }

    /// The first place in `text[start..<end]` at which a special token may begin.
    @inline(__always)
    func candidate(in text: UnsafePointer<UInt8>, from start: Int, to end: Int) -> Int {
        guard hasTokens else { return end }
        var offset = start
        while offset < end, roots[Int(text[offset])] < 0 { offset += 1 }
        return offset
    }

    /// The longest token that begins at `start`; a guarded one only if it ends by `trustedEnd`.
    func longestMatch(in text: UnsafePointer<UInt8>, at start: Int, to end: Int, trustedEnd: Int) -> Match? {
        var found: Match?
        var offset = start
        var node = roots[Int(text[start])]
        while node >= 0 {
            let current = nodes[Int(node)]
            offset += 1
            if current.guardedToken >= 0, offset <= trustedEnd {
                found = Match(id: current.guardedToken, end: offset)
            } else if current.openToken >= 0 {
                found = Match(id: current.openToken, end: offset)
            }
            if offset >= end { break }
            node = current.firstChild
            while node >= 0, nodes[Int(node)].byte != text[offset] { node = nodes[Int(node)].nextSibling }
        }
        return found
    }
}
