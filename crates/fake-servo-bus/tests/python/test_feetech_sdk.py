"""Feetech's own Python SDK talks to the fake servos: what it expects of a servo, the fake does.

Needs feetech-servo-sdk, pyserial and pytest; SERVE is the path of the built example `serve`.
"""

import os
import subprocess
import time

import pytest
from scservo_sdk import COMM_RX_TIMEOUT, COMM_SUCCESS, GroupSyncRead, GroupSyncWrite, PacketHandler, PortHandler

IDS = range(1, 7)
ID, MIN_POSITION, TORQUE_ENABLE, ACCELERATION, GOAL_POSITION = 5, 9, 40, 41, 42
LOCK, PRESENT_POSITION = 55, 56


class Port(PortHandler):
    """The SDK waits 34 ms for a reply; a busy machine may not let the fake run for so long."""

    def setPacketTimeout(self, packet_length):
        super().setPacketTimeout(packet_length)
        self.packet_timeout += 500


class Bus:
    def __init__(self, path):
        self.port = Port(path)
        assert self.port.openPort() and self.port.setBaudRate(1_000_000)
        self.packets = PacketHandler(0)

    def read(self, servo, address, size):
        call = self.packets.read1ByteTxRx if size == 1 else self.packets.read2ByteTxRx
        value, result, error = call(self.port, servo, address)
        assert (result, error) == (COMM_SUCCESS, 0)
        return value

    def write(self, servo, address, value, size):
        call = self.packets.write1ByteTxRx if size == 1 else self.packets.write2ByteTxRx
        assert call(self.port, servo, address, value) == (COMM_SUCCESS, 0)


@pytest.fixture
def bus():
    server = subprocess.Popen([os.environ["SERVE"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    bus = Bus(server.stdout.readline().strip())
    yield bus
    bus.port.closePort()
    server.stdin.close()
    assert server.wait(timeout=5) == 0


def test_every_servo_answers_a_ping_with_its_model(bus):
    for servo in IDS:
        assert bus.packets.ping(bus.port, servo) == (777, COMM_SUCCESS, 0)


def test_who_is_not_there_does_not_answer(bus):
    assert bus.packets.ping(bus.port, 9)[1] == COMM_RX_TIMEOUT


def test_what_is_written_is_read(bus):
    bus.write(3, ACCELERATION, 50, 1)
    bus.write(3, GOAL_POSITION, 1234, 2)
    assert bus.read(3, ACCELERATION, 1) == 50
    assert bus.read(3, GOAL_POSITION, 2) == 1234
    assert bus.read(4, ACCELERATION, 1) == 0


def sync_read(bus, address):
    group = GroupSyncRead(bus.port, bus.packets, address, 2)
    for servo in IDS:
        assert group.addParam(servo)
    assert group.txRxPacket() == COMM_SUCCESS
    assert all(group.isAvailable(servo, address, 2) for servo in IDS)
    return [group.getData(servo, address, 2) for servo in IDS]


def sync_write(bus, address, values):
    group = GroupSyncWrite(bus.port, bus.packets, address, 2)
    for servo, value in zip(IDS, values):
        assert group.addParam(servo, [value & 255, value >> 8])
    assert group.txPacket() == COMM_SUCCESS


def test_six_positions_come_in_one_exchange(bus):
    assert sync_read(bus, PRESENT_POSITION) == [2048] * 6


def test_shafts_follow_goals_once_torque_is_on(bus):
    goals = [2000 + 10 * servo for servo in IDS]
    sync_write(bus, GOAL_POSITION, goals)
    assert sync_read(bus, GOAL_POSITION) == goals
    assert sync_read(bus, PRESENT_POSITION) == [2048] * 6
    for servo in IDS:
        bus.write(servo, TORQUE_ENABLE, 1, 1)
    for _ in range(2000):
        if sync_read(bus, PRESENT_POSITION) == goals:
            break
    assert sync_read(bus, PRESENT_POSITION) == goals


def test_a_registered_write_waits_for_the_action(bus):
    assert bus.packets.regWriteTxRx(bus.port, 2, GOAL_POSITION, 2, [0, 4]) == (COMM_SUCCESS, 0)
    assert bus.read(2, GOAL_POSITION, 2) == 2048
    assert bus.packets.action(bus.port, 0xFE) == COMM_SUCCESS
    assert bus.read(2, GOAL_POSITION, 2) == 1024


def test_a_new_id_is_taken_and_the_old_one_is_free(bus):
    bus.write(6, LOCK, 0, 1)
    bus.packets.write1ByteTxOnly(bus.port, 6, ID, 9)
    # The reply may bear either id: it is not looked at.
    time.sleep(0.05)
    bus.port.ser.reset_input_buffer()
    assert bus.packets.ping(bus.port, 9)[0] == 777
    assert bus.packets.ping(bus.port, 6)[1] == COMM_RX_TIMEOUT
    bus.write(9, LOCK, 1, 1)


def test_the_lock_is_on_at_first_and_the_limits_take_effect_at_once(bus):
    assert bus.read(1, LOCK, 1) == 1
    bus.write(1, MIN_POSITION, 100, 2)
    assert bus.read(1, MIN_POSITION, 2) == 100
