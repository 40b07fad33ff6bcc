//! ECDSA over P-256 with SHA-256, by Zig's standard library: release/p256.h.
const std = @import("std");
const Ecdsa = std.crypto.sign.ecdsa.EcdsaP256Sha256;

/// No text and no stack trace: what cannot happen stops the program at once.
pub const panic = std.debug.no_panic;

comptime {
    @export(&isPoint, .{ .name = "libra_p256_is_point", .visibility = .hidden });
    @export(&isSignature, .{ .name = "libra_p256_is_signature", .visibility = .hidden });
}

fn isPoint(point: *const [65]u8) callconv(.c) bool {
    _ = Ecdsa.PublicKey.fromSec1(point) catch return false;
    return point[0] == 4;
}

fn isSignature(
    point: *const [65]u8,
    message: [*]const u8,
    message_size: usize,
    der: [*]const u8,
    der_size: usize,
) callconv(.c) bool {
    const key = Ecdsa.PublicKey.fromSec1(point) catch return false;
    const found = Ecdsa.Signature.fromDer(der[0..der_size]) catch return false;
    found.verify(message[0..message_size], key) catch return false;
    // One signature has one form, as OpenSSL holds it too.
    var buffer: [Ecdsa.Signature.der_encoded_length_max]u8 = undefined;
    return std.mem.eql(u8, found.toDer(&buffer), der[0..der_size]);
}
