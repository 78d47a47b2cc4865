import Modeling

extension Projection {
    /// Hugging Face's path below a layer's module.
    var moduleName: String {
        switch self {
        case .q: "self_attn.q_proj"
        case .k: "self_attn.k_proj"
        case .v: "self_attn.v_proj"
        case .o: "self_attn.o_proj"
        case .gate: "mlp.gate_proj"
        case .up: "mlp.up_proj"
        case .down: "mlp.down_proj"
        }
    }

    /// The last word of `moduleName`, as target lists have it.
    var shortModuleName: String { String(moduleName.drop { $0 != "." }.dropFirst()) }

    /// GGUF's name of the weight below `blk.N.`.
    var tensorName: String {
        switch self {
        case .q: "attn_q.weight"
        case .k: "attn_k.weight"
        case .v: "attn_v.weight"
        case .o: "attn_output.weight"
        case .gate: "ffn_gate.weight"
        case .up: "ffn_up.weight"
        case .down: "ffn_down.weight"
        }
    }
}

/// A layer's number as names write it: digits without a leading zero.
func layerNumber(_ text: Substring) -> Int? {
    guard !text.isEmpty, text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }), let number = Int(text), String(number) == text else {
        return nil
    }
    return number
}
