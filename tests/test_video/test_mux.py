import numpy as np
import pytest
from clips import Mirror, packets, remux, write_clip

from lowlight_cyclegan.video.pipeline import enhance_video


def sound(change):
    return lambda packet, i: change(packet, i) if packet.stream.type == 'audio' else packet


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4'])
def test_damaged_sound_packet_is_left_out_with_a_line(tmp_path, suffix):
    clip = write_clip(tmp_path / 'clip.mp4', seconds=1)
    stream = remux(clip, tmp_path / 'clip.ts', lambda packet, i: packet)
    data = bytearray((tmp_path / 'clip.ts').read_bytes())
    kept = packets(stream, 'audio')
    header = data.find(kept[8][3][:24])  # of an ADTS frame in the middle of the stream
    assert header > 0
    data[header:header + 7] = b'\xff\xf1\0\0\0\0\0'
    (tmp_path / 'bad.ts').write_bytes(data)
    lines, output = [], str(tmp_path / f'out{suffix}')
    assert enhance_video(str(tmp_path / 'bad.ts'), output, Mirror(), say=lines.append) == 12
    assert len(lines) == 1 and 'packets of stream 1 (audio)' in lines[0] and '\n' not in lines[0]
    assert 8 <= len(packets(output, 'audio')) < len(kept)


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4'])
def test_sound_packets_of_one_timestamp(tmp_path, suffix):
    clip = write_clip(tmp_path / 'clip.mp4', seconds=1)

    def stamp(packet, i):
        if i == 5:
            packet.pts = packet.dts = packet.pts - packet.duration
        return packet

    source = remux(clip, tmp_path / 'twice.mkv', sound(stamp))
    twice = [pts for pts, *_ in packets(source, 'audio')]
    assert len(set(twice)) == len(twice) - 1
    output = str(tmp_path / f'out{suffix}')
    assert enhance_video(source, output, Mirror()) == 12
    copied = packets(output, 'audio')
    assert [p[3] for p in copied] == [p[3] for p in packets(source, 'audio')]
    assert np.all(np.diff([float(dts) for _, dts, *_ in copied]) > 0)
