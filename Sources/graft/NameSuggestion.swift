/// The name that somebody most likely meant, if one is near enough to be worth a question.
///
/// Near is: at most a third of the characters is wrong (two neighbours in the wrong order count as one); or, from four characters on, it is the
/// beginning of a name with at most a quarter wrong, or stands in the middle of one. Case does not count.
package func nearestName(to wrong: String, among names: [String]) -> String? {
    let wanted = Array(wrong.lowercased())
    guard !wanted.isEmpty else { return nil }
    let distances = names.map { editDistances(wanted, Array($0.lowercased())) }
    func nearest(_ distances: [Int], atMost limit: Int) -> String? {
        let best = distances.indices.min { (distances[$0], $0) < (distances[$1], $1) }
        return best.flatMap { distances[$0] <= limit ? names[$0] : nil }
    }
    if let name = nearest(distances.map(\.whole), atMost: max(1, wanted.count / 3)) { return name }
    guard wanted.count >= 4 else { return nil }
    let word = wrong.lowercased()
    return nearest(distances.map(\.prefix), atMost: wanted.count / 4) ?? names.first { $0.lowercased().contains(word) }
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment) that make `b` of `a`: all of it, and the beginning
/// of it that is nearest.
private func editDistances(_ a: [Character], _ b: [Character]) -> (whole: Int, prefix: Int) {
    var beforeLast: [Int] = []
    var last = Array(0...b.count)
    for i in 0..<a.count {
        var row = [i + 1]
        for j in 0..<b.count {
            var cost = min(last[j] + (a[i] == b[j] ? 0 : 1), last[j + 1] + 1, row[j] + 1)
            if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { cost = min(cost, beforeLast[j - 1] + 1) }
            row.append(cost)
        }
        beforeLast = last
        last = row
    }
    return (last[b.count], last.min()!)
}
